import pytest

from keras_ext.ops.deepnorm import OPTIMIZERS, deepnorm_constants


@pytest.mark.parametrize("n", [1, 6, 100, 1000])
def test_one_stack_has_the_papers_constants(n):
    expected = (2 * n) ** (1 / 4), (8 * n) ** (-1 / 4)
    assert deepnorm_constants(n) == pytest.approx(expected)
    assert deepnorm_constants(num_decoder_layers=n, role="decoder") == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (12, 3), (100, 50)])
def test_encoder_and_decoder_have_the_papers_constants(n, m):
    encoder = 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
    assert deepnorm_constants(n, m) == pytest.approx(encoder)
    assert deepnorm_constants(n, m, "decoder") == pytest.approx(
        ((3 * m) ** 0.25, (12 * m) ** -0.25)
    )


@pytest.mark.parametrize(
    ("n", "m", "role", "sublayers"),
    [
        (8, None, "encoder", 16),
        (None, 8, "decoder", 16),
        (8, 5, "encoder", 16),
        (5, 8, "decoder", 24),
    ],
)
def test_constants_by_optimizer_keep_their_law_of_the_number_of_sublayers(n, m, role, sublayers):
    alpha, beta = deepnorm_constants(n, m, role, "sgd")
    assert beta / alpha == pytest.approx(sublayers**-0.5) and alpha * beta == pytest.approx(1)
    alpha, beta = deepnorm_constants(n, m, role, "adam")
    assert beta / alpha == pytest.approx(1 / sublayers) and alpha * beta == pytest.approx(1)
    alpha, beta = deepnorm_constants(n, m, role, "lamb")
    assert alpha == 1 and beta**2 / alpha == pytest.approx(1 / sublayers)


def test_the_papers_row_is_that_of_sgd_up_to_a_factor():
    for n in (3, 48, 192):
        alpha, beta = deepnorm_constants(n)
        assert beta / alpha == pytest.approx((4 * n) ** -0.5)


@pytest.mark.parametrize(
    ("n", "m", "role"),
    [(None, None, "encoder"), (None, 6, "encoder"), (6, None, "decoder"), (0, None, "encoder")]
    + [(6, 0, "encoder"), (0, 6, "decoder"), (-1, 6, "encoder")],
)
def test_a_stack_without_layers_is_refused(n, m, role):
    for optimizer in OPTIMIZERS:
        with pytest.raises(ValueError, match=f"Received: num_encoder_layers={n}.*{m}, role="):
            deepnorm_constants(n, m, role, optimizer)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'decoder'.*Received: role='both'"):
        deepnorm_constants(6, 6, "both")
    with pytest.raises(ValueError, match="'lamb'.*Received: optimizer='tiger'"):
        deepnorm_constants(6, optimizer="tiger")
