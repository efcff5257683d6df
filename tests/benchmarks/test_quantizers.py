import keras
import pytest
import quantizers


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="nothing that a backend can change")
def test_the_tables_of_digits(capsys):
    quantizers.main(["digits", "--codes", "2^4", "--seeds", "0", "--epochs", "1"])
    printed = capsys.readouterr().out
    tables = [line for line in printed.splitlines() if line.startswith("| 2^4 | 15 |")]
    assert len(tables) == 3
    errors = [float(cell.split()[0]) for cell in tables[0].split("|")[3:-1]]
    assert len(errors) == 5 and all(0.05 < error < 1.0 for error in errors)
    assert "2^4: FSQ minus the best VQ, by seed:" in printed
