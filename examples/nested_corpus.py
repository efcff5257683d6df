"""A small English corpus with nested entities, made from a grammar.

Labels: `person` (without titles), `organisation`, `place`, `product` (with its maker), `date`. An
article before a name is outside of it. A full personal name, a place, an organisation or a year
inside a longer name is an entity too: `[product [organisation Bank of [place Norway]] Card]`; a
bare surname inside a company's name is not. Persons, companies and products are invented. Names in
dev never occur in train, and some dev sentences follow patterns that train never shows.
`python examples/nested_corpus.py` writes `data/nested_train.jsonl` and `data/nested_dev.jsonl`.
"""

import json
import random
import re
from pathlib import Path

# Names: those of train | those of dev. Several first names and cities are the same word on purpose.
NAMES = {
    "first": "Ana, Ingrid, Tomas, Florence, Yusuf, Mirela, Kofi, Jordan, Hana, Oskar, Leila, "
    "Victoria, Bruno, Sinead, Rafael, Noor, Emeka, Austin, Petra, Dmitri, Chelsea, Wanjiru, "
    "Lukas, Sofia, Haruto, Madison, Elif, Anton, Priya, Sydney, Goran, Mei | Ilse, Adelaide, "
    "Tariq, Georgia, Viggo, Amara, Carolina, Stefan, Yuki, Milan, Odile, Radek",
    "last": "Ribeiro, Solberg, Marlow, Okonedo, Varga, Lindqvist, Haddad, Ferrante, Kowalik, "
    "Nakagami, Penrith, Duarte, Achterberg, Mbeki-Stone, O'Farran, Castellano, Ilves, Rosdahl, "
    "Tanaquil, Whitcombe, Zelenka, Aydemir, Bhandary, Corrigale, Espinel, Fairbourne, Grimaldo, "
    "Hjelmar, Ivanek, Jaswant, Kettleby, Lamontaine | Quennell, Brandvold, Sarkozian, "
    "Thistlewood, Umarov, Vasconcel, Abernethie, Dragomir, Eskildsen, Farouqi, Ombasa, Pellegrane",
    "cityname": "Lisbon, Kyoto, Geneva, Florence, Bergen, Nairobi, Toronto, Austin, Lyon, Krakow, "
    "Sydney, Hanoi, Porto, Seville, Dublin, Victoria, Accra, Zagreb, Naples, Cork, Montreal, "
    "Oslo, Graz, Cusco, Leeds, Osaka, Turin, Madison, Antwerp, Tallinn, Valencia, Chelsea, Malmo, "
    "Cardiff, Bilbao, Quito, Bath, New Orleans, Reading, Cape Town | Utrecht, Adelaide, Milan, "
    "Vilnius, Dakar, Nagoya, Salamanca, Aarhus, Bristol, Calgary, Trieste, Mobile, San Diego, Nice",
    "countryname": "Norway, Portugal, Chile, Kenya, Japan, Jordan, Ireland, Peru, Estonia, "
    "Vietnam, Morocco, Finland, Uruguay, Croatia, Senegal, Canada, Turkey, Denmark, Ecuador, "
    "Austria, New Zealand, Iceland | Georgia, Sweden, Ghana, Slovenia, Malaysia, Belgium, "
    "Colombia, South Korea",
    "stem": "Veltrano, Ardenix, Quillmark, Halvion, Brackwell, Norvane, Lumetra, Osprin, Kestova, "
    "Tidewell, Fennimar, Copperlane, Ondrex, Blue Heron, Sorrelby, Maxiphon, Graylark, Pivotal "
    "Oak, Zindra, Ultravane, Harrowgrid, Swift, Oriel, Beacon | Drellmont, Kaltrix, Silver Pine, "
    "Ambrivo, Jettison, Wexcombe, Tallowin, Nuvexa, Compass",
    "model": "X200, Calyx, Tarn 5, Zephyr 3, Piko, R7, Halo Mini, Brisa, Q-40, Meridian, Tupelo, "
    "V8 Pro, Skylark, Nimbo, Aria 12, Fjord, D-900, Pebble | Solstice, K15, Juno Max, Tamarind, "
    "Z-70, Opal 2, Wren, Sequoia, T4 Lite",
    "plain": "May I sit here, or is this seat taken?; March past the gate, turn left and follow "
    "the {thing}.; The bank of the river was steep and covered with {thing}s.; Nobody at the "
    "university had time to repair the {thing}.; Chapter Three explains why the CEO ignored every "
    "DNA test.; God knows what the President's lawyer did with the {thing}.; Please turn off the "
    'Wi-Fi before you open the {thing}.; "I will," she said, and closed the {thing} behind '
    "her.; The foundation of the old house had sunk by {number} millimetres.; Who would swap "
    "{number} books for a single {thing}?; Most English teachers earn less than a French "
    "plumber.; GDP grew faster than the Treasury's critics had feared.; Turkey with china plates: "
    "ten tips for a cheaper dinner; Her Majesty will not be reading the letter about the "
    "{thing}.; It took {number} people to carry the {thing} up the stairs. | Section Five deals "
    "with the TV licence and the {thing}.; Will anyone march with us if it rains?; The Spanish "
    "lesson was shorter than the Latin one.; The minister may swap the {thing} for {number} new "
    "chairs.; Professor or not, he had never seen such a {thing}.",
}

# What a slot may become; a rule drawn more often stands twice. "the" stays outside of the entity.
RULES = {
    "city": "[place {cityname}]",
    "country": "[place {countryname}]",
    "town": "{city}; {city}; {country}",
    "per": "[person {first} {last}]; [person {first} {last}]; [person {first} {initial}. {last}]",
    "sur": "[person {last}]",
    "given": "[person {first}]",
    "co": "[organisation {stem}]; [organisation {stem} {suffix}]; [organisation {stem} {trade}]; "
    "[organisation {last} {trade}]; [organisation {city} {trade}]; [organisation {city} {trade}]; "
    "[organisation {last} & {last}]; [organisation {trade} {country}]",
    "bank": "[organisation Bank of {country}]; [organisation {city} Savings Bank]",
    "uni": "[organisation University of {city}]; [organisation Technical University of {country}]",
    "body": "{bank}; {uni}; {uni}; [organisation {per} Foundation]; [organisation {per} Trust]; "
    "[organisation {co} Foundation]; [organisation National Museum of {country}]; [organisation "
    "{city} [date {year}] Committee]; [organisation {city} Philharmonic]; [organisation Ministry "
    "of {field}]; [organisation {city} Chamber of Commerce]",
    "bare": "[organisation {city} City Council]; [organisation {city} University]; [organisation "
    "{uni} Press]; [organisation {per} Institute of {field}]; [organisation {uni} Hospital]",
    "org": "{co}; {co}; the {body}; the {body}; {bare}",
    "team": "[organisation {cityname}]; [organisation {cityname}]; [organisation {city} United]; "
    "[organisation {city} Rovers]",
    "site": "[place {city} Airport]; [place {city} Central Station]; the [place {per} Bridge]; "
    "the [place Port of {city}]; the [place {uni} Library]; [place {last} Square]; the [place "
    "{co} Stadium]; [place {last} Park]",
    "device": "[product {co} {model}]; [product {co} {model} {gadget}]; [product {model} "
    "{gadget}]; [product [date {year}] {co} {model}]",
    "prod": "{device}; {device}; {device}; [product {bank} Card]; [product {co} Yearbook [date "
    "{year}]]; [product {uni} Atlas of {country}]",
    "soon": "on [date {weekday}]; on [date {dayno} {month}]; in [date {month}]; in [date {month} "
    "2031]",
    "day": "[date {weekday}]; [date {weekday}]; [date {dayno} {month}]; [date {weekday}, {dayno} "
    "{month}]; [date {dayno} {month} {year}]; [date {month} {dayno}]",
    "period": "[date {year}]; [date {month}]; [date {month} {year}]; [date spring {year}]; [date "
    "late {month}]",
    "when": "on {day}; on {day}; in {period}",
    "year": "; ".join(str(year) for year in range(1987, 2031)),
    "dayno": "; ".join(str(day) for day in range(1, 29)),
    "initial": "; ".join("ABDEHJKLMRTW"),
    "few": "2; 3; 5; 7; 11; 18",
    "number": "3; 12; 17; 40; 75; 300; 640; 1,200; 4,500",
    "weekday": "Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday",
    "month": "January; February; March; April; May; June; July; August; September; October; "
    "November; December",
    "suffix": "Ltd; Group; Holdings; Inc; GmbH; Partners",
    "trade": "Robotics; Motors; Airlines; Foods; Pharma; Energy; Software; Shipping; Textiles; "
    "Insurance",
    "field": "Health; Transport; Agriculture; Science; Education; Marine Biology",
    "gadget": "camera; phone; kettle; vacuum cleaner; electric bike; headphones; tablet; drill",
    "thing": "door; ladder; blanket; wooden box; lantern; bicycle; curtain; radio",
}

TEMPLATES = """\
{org} opened a laboratory in {town} {when}.
{per}, who founded {co} in {period}, now lives near {city}.
The chief executive of {org}, {per}, will step down {soon}.
Shares in {co} fell by 4 per cent after {org} sold its stake {when}.
{co} has agreed to buy {co} for {number} million euros, two people close to the talks said.
Why did {org} close its office in {city}?
"We never planned to leave {town}," said {per}, who speaks for {org}.
{per} of {org} and {per} of {org} shared the prize {when}.
Engineers at {co} tested the {device} at {site} for {few} hours.
Is the {prod} worth the money, or should you wait until {day}?
{town}: {org} to hire {number} nurses
{co} recalls {number} units of the {prod}
Storm closes {site} for a third day
{sur} leaves {co} after quarrel over the {prod}
{team} beat {team} 3-1 in front of {number} supporters {when}.
{team} have signed the striker {per} from {team}.
Can {team} still win the league without {sur}?
{given} moved to {city} with {given} and two cats.
{given}'s train to {city} left {site} at noon.
Dr {sur} studied at {org} before she joined {co}.
The old road from {city} to {city} was closed {when}.
Three visitors from {country}, two from {country} and one from {country} waited at {site}.
The speakers are {per} ({org}), {per} ({org}) and {per} ({org}).
Born in {city} in [date {year}], {per} taught physics at {org} for {few} years.
In {period} the family left {country} and settled in {city}.
By {period}, {co} had sold {few} thousand copies of the {prod}.
Between {period} and {period} nothing changed at {org}.
According to {org}, rainfall in {town} was the lowest since {period}.
"Does the {device} come with a charger?" asked {per}.
Ms {sur} said that {org} had never heard of the {prod}.
If {co} misses the deadline of {day}, {org} may cancel the contract.
The minister flew from {city} to {city}, then drove to {site}.
A {city} court ruled {when} that {co} must repay {number} customers.
A former manager of {co}, {per} was elected mayor of {city} {when}.
I bought the {prod} {when} and returned it within a week.
My neighbour swears by her {prod}; I prefer the {prod}.
The bridge was designed by {per} and paid for by {org}.
Meet me at {site}, not at {site}.
President {sur} will visit {country}, {country} and {city} {soon}.
Researchers from {org} have mapped every river in {country}.
The CEO of {co} met Professor {sur} at {site} {when}.
The {prod}, launched in {period}, made {co} famous in {country}.
Since {period}, {per} has led the choir of {org}.
{per} (born [date {dayno} {month} {year}]) is a painter from {city}.
{co} to open {number} shops in {country} before [date {weekday}]
Please send the {prod} to {per}, {org}, {city}.
Thanks to a gift from {org}, {org} can restore the organ.
In a letter to {org} dated {day}, {per} apologised.
They named their baby {given} after a street in {city}.
Under {sur}, {co} grew from {number} employees to more than 9,000.
The strike spread from {site} to {site} within hours.
We compared three models: the {device}, the {device} and the {device}.
What time does {site} open {soon}?
The President's visit to {org} was moved to {day}.
Like many Portuguese engineers, {per} learned English in {town}.
The bank refused, so {given} asked {org} for a loan.
Trains from {city} stop at {site} and, since {period}, at {site}.
{co} said the {device} had passed every safety test in {country}.
On the advice of {org}, the school replaced its computers with the {device}.
She left {co} in {period}, wrote two books about {country} and, {when}, joined {org}.
{city}, {day} - {org} has chosen {per} to lead its work in {country}, a spokesman for {co} said.
Half of the money comes from {org}; the other half was raised by {per} in {town}.
"""

DEV_TEMPLATES = """\
Once a clerk at {org}, {per} today owns the {prod} brand.
Correction: {per} works for {org}, not for {org}.
The ferry to {city} leaves {site} every [date {weekday}].
There is no better place than {town} to try the {prod}.
{given} and {given} were married in {city} {when}.
Should {org} really trust {co}?
From {day} onwards, {co} will no longer repair the {device}.
{team} drew with {team}, and {sur} scored twice.
Asked about {country}, {per} only smiled and pointed at the {prod}.
Founded by {per} in {period}, {org} now has offices in {city}, {city} and {country}.
{sur}: "{co} is not for sale"
The winner, a student at {org}, received the {device}.
"""


def draw_sentence(template: str, names: dict, rng: random.Random) -> str:
    """Replaces slots by drawn rules until none is left; returns text with bracketed entities."""
    while slot := re.search(r"\{(\w+)\}", template):
        template = template[: slot.start()] + rng.choice(names[slot[1]]) + template[slot.end() :]
    template = re.sub(r"\b([Aa]) (?=(\[\w+ )*[AEIO])", r"\1n ", template)
    return re.sub(r"^the ", "The ", template)


def parse(markup: str) -> tuple[str, list[dict]]:
    """`"[place Oslo] sleeps"` becomes `"Oslo sleeps"` and its entities, outer ones first."""
    text, opened, entities = "", [], []
    for piece in re.split(r"(\[[a-z]+ |\])", markup):
        if piece.startswith("["):
            opened.append((len(text), piece[1:-1]))
        elif piece == "]":
            start, label = opened.pop()
            entities.append({"start": start, "end": len(text), "label": label})
        else:
            text += piece
    return text, sorted(entities, key=lambda entity: (entity["start"], -entity["end"]))


def make_corpus(size: int, split: str = "train", seed: int = 0) -> list[dict]:
    """Makes `size` distinct records of `split` ("train" or "dev"), the same for the same seed."""
    if split not in ("train", "dev"):
        raise ValueError(f'The split must be "train" or "dev". Received: split={split!r}')
    rng = random.Random(f"{split} {seed}")
    choices = {slot: rule.split("; ") for slot, rule in RULES.items()}
    for slot, both in NAMES.items():
        part = both.split(" | ")[split == "dev"]
        choices[slot] = part.split("; " if slot == "plain" else ", ")
    lines = TEMPLATES + (split == "dev") * DEV_TEMPLATES
    templates = lines.splitlines() + choices["plain"]
    records, seen = [], set()
    while len(records) < size:
        rng.shuffle(templates)  # every pattern once in a round
        for template in templates[: size - len(records)]:
            text, entities = parse(draw_sentence(template, choices, rng))
            names = [text[entity["start"] : entity["end"]] for entity in entities]
            if text in seen or len(names) > len(set(names)) or re.search(r"(\w+) & \1", text):
                continue  # nobody flies from Oslo to Oslo, or trades as Varga & Varga
            seen.add(text)
            number = f"{split}-{len(records) + 1:04d}"
            records.append({"id": number, "text": text, "entities": entities})
    return records


def main():
    """Writes both files."""
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    for split, size in (("train", 900), ("dev", 250)):
        lines = [json.dumps(record, ensure_ascii=False) for record in make_corpus(size, split)]
        path = folder / f"nested_{split}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(f"{path.name}: {size} sentences")


if __name__ == "__main__":
    main()
