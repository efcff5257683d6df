"""A small English corpus of graded sentence pairs, made from templates: messages to a town hall.

What the writer wants decides the grade, not the words:

    5  the same request, about the same thing, for the same day
    4  as 5, but another day, or only one of the two names a day
    3  the same request about another thing
    2  another request about the same thing ("book the court" and "cancel the court")
    1  another request about another thing of the same topic
    0  another topic

Pairs of high grades are picked for few words in common, those of low grades for many. A thing has
up to two names, "sofa=couch". Things of dev and test occur in no other file, and neither do some
templates. `python examples/sentence_corpus.py` writes `data/graded_train.tsv`, `graded_dev.tsv` and
`graded_test.tsv`: text, tab, text, tab, grade.
"""

import random
import re
from pathlib import Path

SPLITS = {"train": 1200, "dev": 300, "test": 300}
DAYS = (
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, 2 March, 9 May, 14 June, "
    "21 July, 30 August, 5 October, 17 November"
)

# In everything below: train | dev only | test only.
THINGS = {
    "sports": "tennis court=court for tennis, badminton court, squash court, bowling lane=bowling "
    "alley, climbing wall, sauna=steam room, rowing boat=rowboat, dance studio=dance hall, boxing "
    "ring, gym=fitness room, archery range, table for ping-pong=table for table tennis | "
    "volleyball court, ice rink=skating rink, running track, billiard table=pool table | football "
    "pitch=soccer field, swimming lane=lane in the pool, judo room, yoga studio=yoga room",
    "library": "cookbook=book of recipes, atlas=book of maps, bird guide=book on birds, crime "
    "novel=detective story, dictionary, guide to Rome=Rome travel book, comic=graphic novel, book "
    "of songs=songbook, chess manual=book on chess, biography=life story, encyclopedia, fairy "
    "tale book=book of fairy tales | physics textbook, ghost story, book of poems=volume of poetry, "
    "gardening guide=book on gardens | star map=chart of the sky, history of Spain=book on Spanish "
    "history, love story=romance, grammar book=textbook of grammar",
    "waste": "sofa=couch, fridge=refrigerator, wardrobe=closet, mattress, piano, bookcase=set of "
    "shelves, washing machine=washer, easy chair=armchair, carpet=rug, television=TV set, desk, "
    "bicycle=bike | bathtub=bath, freezer, bunk bed, cupboard=cabinet | stove=cooker, dining "
    "table, chest of drawers=dresser, grass cutter=lawnmower",
    "parking": "van, motorbike=motorcycle, caravan, pickup truck=pickup, scooter, minibus=small "
    "bus, sports car, electric car=e-car, camper=motorhome, lorry=truck, taxi=cab, jeep | "
    "moped, estate car=station wagon, tractor, coach=bus | trailer, hatchback=small car, "
    "convertible=open-top car, limousine",
    "courses": "Spanish course=Spanish class, pottery course=pottery class, sewing class=sewing "
    "group, guitar course=guitar class, first aid course=first aid training, baking class, "
    "typing course, painting class=painting group, choir, Arabic course=Arabic class, chess "
    "club, carpentry course=woodwork class | knitting class=knitting group, Italian course=Italian "
    "class, drumming class=drum course, theatre group=drama group | swimming course=swimming "
    "class, photography class=photo course, Korean course=Korean class, cookery class=cooking "
    "course",
    "papers": "passport, identity card=ID card, birth certificate, driving licence=driver's "
    "licence, marriage certificate, residence permit, fishing licence=angling licence, building "
    "permit, student card=student ID, dog licence, pension certificate, voter card=voting card | taxi "
    "licence, visa, death certificate, press card=press pass | hunting licence, work permit, "
    "travel document, health card=health insurance card",
}

TOPICS = {
    "sports": """\
I would like to book the {thing} for {day}. Please reserve the {thing} for us on {day}. Could you \
put my name down for the {thing} on {day}? Is it still possible to get the {thing} on {day}? Four \
of us want to use the {thing}, so please keep it for me. | We need the {thing} on {day}, can you \
arrange it? Save the {thing} for my team. | I want to make a reservation for the {thing}, {day} \
if possible. Can my friends and I have the {thing} on {day}? Mark the {thing} as taken by me.
I would like to cancel the {thing} for {day}. Please delete my reservation of the {thing} on \
{day}. We will not be able to come to the {thing} on {day} after all. Half of my team is ill, so \
somebody else may have the {thing}. Could you take my name off the list for the {thing} on {day}? \
| I have to drop the {thing} on {day}. Please strike out our hour at the {thing}. | Something came \
up and I no longer need the {thing} on {day}. Please call off my hour at the {thing}. Do not keep \
the {thing} for me on {day}.
How much is the {thing} for an hour on {day}? What do you charge for the {thing}? Please send me \
the prices of the {thing}. What would it cost us to use the {thing} on {day}? Could you tell me \
the fee for the {thing} on {day}? | What is the rate for the {thing} on {day}? Are students \
charged less for the {thing}? | Is there a price list for the {thing}? How many euros would I pay \
for the {thing} on {day}? I wonder whether we can afford the {thing}.
I would like to move the {thing} from {day} to another date. Can we have the {thing} later than on \
{day}? Please change my reservation of the {thing} on {day} to the week after. {day} does not suit \
us any more, is the {thing} free at some other time? Could we swap our hour at the {thing} for a \
later one? | Please shift our game at the {thing} on {day} by one hour. We want the {thing} on a \
different date. | Instead of on {day}, I would rather come to the {thing} some days later. May we \
postpone our hour at the {thing}? The {thing} on {day} is too early for us, what else do you have?
""",
    "library": """\
I would like to keep the {thing} longer than {day}. Please extend my loan of the {thing}. I have \
not finished the {thing}, may I return it after {day}? Can you give me two more weeks with the \
{thing}? The {thing} is due on {day}, but I need it for some time yet. | Please renew the {thing} \
that should be back on {day}. Is a longer loan of the {thing} possible? | I am still reading the \
{thing}, so please forget the date of {day}. May the {thing} stay with me a little while? Could \
the deadline of {day} for the {thing} be put off?
I have lost the {thing} that I borrowed. The {thing} that I took home on {day} is nowhere to be \
found. What shall I do, I left the {thing} on a bus on {day}? Somebody must have stolen the \
{thing} from my bag on {day}. I cannot give the {thing} back because it has disappeared. | My copy \
of the {thing} is gone. I have looked everywhere for the {thing} since {day}. | The {thing} has \
been missing from my desk since {day}. I am afraid the {thing} will not turn up again. Since we \
moved house on {day}, nobody knows where the {thing} is.
Why do I have to pay a fine for the {thing}? I returned the {thing} on {day}, and yet you charge \
me for being late. The reminder for the {thing} is wrong, please check it. I will not pay for the \
{thing}, because I gave it back on {day}. You sent me a bill for the {thing}, although it has been \
on your shelf since {day}. | The fee for the {thing} must be a mistake, I was not late. Please \
take the charge for the {thing} off my account, I handed it in on {day}. | I was never overdue \
with the {thing}, so why this penalty? I put the {thing} in your box on {day}, so I owe you \
nothing. Please cancel the late fee for the {thing} of {day}.
I would like to borrow the {thing} from {day}. Please set the {thing} aside for me. Could you keep \
the {thing} at the desk until {day}? Put me on the waiting list for the {thing}. When the {thing} \
comes back on {day}, may I have it next? | Please reserve the {thing} for my son. I want to read \
the {thing} and will pick it up on {day}. | Can I be the next reader of the {thing}? Hold the \
{thing} for me, I will come by on {day}. Tell me as soon as I can fetch the {thing}, {day} at the \
latest.
""",
    "waste": """\
Please collect my old {thing} on {day}. I want to get rid of a {thing}, can your lorry come on \
{day}? Could somebody take away the {thing} that I do not need any more? There is a {thing} in my \
cellar which should go to the dump. When can you fetch a broken {thing}, would {day} do? | I need \
a pickup for a {thing} on {day}. Who removes a {thing} from the third floor? | My {thing} is \
rubbish now, please send someone on {day}. Can you carry off the {thing} that fills my garage? I \
would like to throw out a {thing}, will you come for it on {day}?
You did not collect my old {thing} on {day}. The {thing} is still standing in front of my house. I \
put out the {thing} on {day}, but nobody came. Your lorry drove past and left the {thing} where it \
was. Why is the {thing} still on the pavement, it should have been gone on {day}? | My {thing} was \
overlooked on {day}. Your men took everything else but not the {thing}. | Nobody turned up on \
{day} to fetch the {thing}. I waited in vain, and my {thing} blocks the path. Once again my \
{thing} was forgotten on {day}.
My {thing} is too good for the dump, who would like to have it? I want to give away a {thing} that \
works well. Does the second-hand shop take a {thing} on {day}? Is there a family that could use my \
{thing} from {day}? I would rather donate the {thing} than throw it out. | I offer my {thing} for \
free to anyone who fetches it on {day}. Who is glad of a {thing}? | Can I bring a \
{thing} in good condition to the charity on {day}? Please find a new owner for my {thing}. Somebody \
in need may have my {thing} for nothing, from {day} on.
What does it cost to have a {thing} collected? How much do you charge for taking away a {thing} on \
{day}? Do I have to pay when you fetch the {thing} on {day}? Please tell me the fee for a {thing}. \
Is the collection of a {thing} free? | What will I be billed for the removal of the {thing} on \
{day}? Name me the price for a {thing}, please. | How expensive is it when you pick up a {thing}? \
I would like to know the charges for my {thing} before {day}. With how many euros do I have to \
reckon for a {thing} on {day}?
""",
    "parking": """\
I need a parking permit for my {thing} from {day}. How do I apply for a permit for a {thing}? We \
have moved here and want to leave the {thing} in our street from {day}. May I have a resident's \
badge for the {thing}? Please allow my {thing} to park near my flat, starting on {day}. | Send me \
the forms for a permit, I will own a {thing} from {day}. Where can I register my {thing} for the \
residents' zone? | From {day} my {thing} should be allowed to stand outside our house. Which \
papers do you need to grant my {thing} a space? I have bought a {thing} and ask for a sticker.
I got a ticket for my {thing} on {day}, but I had a permit. Please cancel the fine for my {thing}. \
The warden made a mistake with my {thing} on {day}. I object to the penalty, the {thing} was \
parked correctly. I will not pay, because my {thing} was not even in town on {day}. | The notice on \
my {thing} of {day} is wrong. Why was my {thing} fined in spite of the badge? | I appeal against \
the charge, since the {thing} stood in my own space on {day}. Take back the ticket for my {thing}. \
The sign was hidden by a tree on {day}, so my {thing} was punished unfairly.
My {thing} was towed away on {day}, where is it? Where can I pick up the {thing} that you removed? \
I came back on {day}, and the {thing} was gone from the street. How do I get my {thing} back from \
your yard? Have you taken my {thing}, it has not been there since {day}? | A tow truck took my \
{thing} on {day}. To which place was my {thing} brought? | I suppose my {thing} stands in your \
pound since {day}. Please return the {thing} that your men dragged off. Is my {thing} among those \
that you hauled off on {day}?
I have sold my {thing}, so please end the permit on {day}. Please cancel the parking permit for my \
{thing}. I will not need the space any more, the {thing} goes to my brother on {day}. My {thing} \
has been scrapped, how do I give the badge back? From {day} I no longer drive the {thing}, please \
stop the monthly fee. | As we leave town on {day}, the sticker of my {thing} is not needed. I \
return the badge of my {thing}. | The {thing} belongs to somebody else now, please close my permit \
on {day}. I have got rid of my {thing} and want no place for it. Do not renew the badge of my \
{thing} after {day}.
""",
    "courses": """\
I would like to join the {thing} on {day}. Please sign me up for the {thing}. Is there a place \
left in the {thing} that starts on {day}? My daughter wants to take part in the {thing}. Could you \
put my name down for the {thing} from {day}? | I want to enrol for the {thing} before {day}. How do \
I become a member of the {thing}? | Please register my wife for the {thing} on {day}. Count me in \
for the {thing}. May a beginner still get into the {thing} on {day}?
I would like to leave the {thing} on {day}. Please take my name off the list for the {thing}. I \
have no time for the {thing} any more, so {day} was my last visit. My daughter does not want to go \
on with the {thing}. Could you give my place in the {thing} to somebody else from {day}? | I must \
quit the {thing} on {day}. Please end my membership of the {thing}. | I will not come to the \
{thing} again after {day}. Count me out of the {thing}. Because of a new job I give up the {thing} \
on {day}.
At what time does the {thing} start on {day}? In which room is the {thing}? Where do we meet for \
the {thing} on {day}? How long does the {thing} last? Could you tell me when the {thing} is over \
on {day}? | When and where is the {thing} on {day}? What are the hours of the {thing}? | To which \
building do I have to go for the {thing} on {day}? Please send me the timetable of the {thing}. Is \
the {thing} in the morning or in the evening on {day}?
The teacher of the {thing} did not appear on {day}. I am not happy with the {thing}. The room of \
the {thing} was cold and much too small on {day}. We learn nothing in the {thing}, and I want my \
money back. I have to complain about the {thing} on {day}. | The {thing} on {day} was a waste of \
time. There are far too many people in the {thing}. | The {thing} was not what your leaflet \
promises. Such a bad hour as in the {thing} on {day} I have never seen. Why was the {thing} so \
loud and badly prepared on {day}?
""",
    "papers": """\
I would like to apply for a {thing} on {day}. What do I have to bring for a new {thing}? Please \
give me an appointment for a {thing} on {day}. How can I get a {thing}? I need a {thing} before \
{day}, what must I do? | Where do I ask for a {thing}? I want to come on {day} to order a {thing}. \
| Which form is the right one for a first {thing}? Can I come in on {day} to request a {thing}? My \
husband wants to obtain a {thing} by {day}.
Is my {thing} ready? I applied for a {thing} on {day} and have heard nothing. When may I pick up \
the {thing} that was promised for {day}? Please check how far my {thing} is. How much longer does \
the {thing} take, it should have come on {day}? | Has my {thing} arrived yet? I have been waiting \
for my {thing} since {day}. | Any news of my {thing}? On {day} you said the {thing} would be here \
soon. Can I fetch the {thing} on {day}, or is it not finished?
I have lost my {thing}. My {thing} was stolen on {day}. I cannot find my {thing} since {day}, what \
do I have to do? Somebody took my bag with the {thing} in it on {day}. What happens if my {thing} \
has disappeared? | I must have left my {thing} on a train on {day}. My {thing} is gone. | Since \
{day} the {thing} has been nowhere to be seen. A thief has my {thing}. My {thing} fell into the \
river on {day}.
My name is spelt wrongly in the {thing}. The date in the {thing} that you sent on {day} is not \
right. Please correct my {thing}. There is a mistake in the {thing} I received on {day}. You wrote \
the wrong street on my {thing}, can it be changed by {day}? | The {thing} of {day} shows a false \
birthday. My {thing} has an error. | One letter is missing from my name on the {thing}. The {thing} \
that came on {day} has the data of another person. Who can mend a misprint in my {thing}?
""",
}


def templates_of(topic: str, split: str) -> list[list[str]]:
    """The templates of each request of a topic: those of train, and what only `split` has."""
    requests = []
    for line in TOPICS[topic].splitlines():
        parts = [re.findall(r"\S[^.?]*[.?]", part) for part in line.split(" | ")]
        requests.append(parts[0] + (parts[list(SPLITS).index(split)] if split != "train" else []))
    return requests


def things_of(topic: str, split: str) -> list[str]:
    """The things of a topic, with both names; those of a split are in no other."""
    return THINGS[topic].split(" | ")[list(SPLITS).index(split)].split(", ")


def grade(first: tuple, second: tuple) -> int:
    """How alike two messages are; each is (topic, request, thing, day or None)."""
    if first[0] != second[0]:
        return 0
    if first[1] != second[1]:
        return 2 if first[2] == second[2] else 1
    if first[2] != second[2]:
        return 3
    return 5 if first[3] == second[3] else 4


def overlap(first: str, second: str) -> float:
    """The share of the words that two sentences have in common."""
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(first & second) / len(first | second)


def draw(choices: dict, rng: random.Random, like: tuple | None = None) -> tuple[str, tuple]:
    """A sentence and what it means, sharing parts of another meaning by chance.

    `choices` holds the templates and the things of each topic.
    """
    topic, request, thing, day = rng.choice(list(choices)), rng.randrange(4), None, None
    if like and rng.random() < 0.8:
        topic = like[0]
        request = like[1] if rng.random() < 0.6 else request
        thing = like[2] if rng.random() < 0.6 else None
        day = like[3] if rng.random() < 0.6 else None
    templates, things = choices[topic]
    thing = thing or rng.choice(things)
    day = day or rng.choice(DAYS.split(", "))
    template = rng.choice(templates[request])
    text = template.replace("{thing}", rng.choice(thing.split("="))).replace("{day}", day)
    text = re.sub(r"\b([Aa]) (?=[aeioAEIO])", r"\1n ", text)
    return text, (topic, request, thing, day if "{day}" in template else None)


def make_pairs(size: int, split: str = "train", seed: int = 0) -> list[tuple[str, str, int]]:
    """Makes `size` pairs of `split`, the same for the same seed, with all grades alike often."""
    if split not in SPLITS:
        raise ValueError(f"The split must be one of {list(SPLITS)}. Received: split={split!r}")
    rng = random.Random(f"{split} {seed}")
    choices = {topic: (templates_of(topic, split), things_of(topic, split)) for topic in TOPICS}
    pairs, seen = [], set()
    while len(pairs) < size:
        wanted = len(pairs) % 6
        text, meaning = draw(choices, rng)
        drawn = [draw(choices, rng, meaning) for _ in range(60)]
        others = sorted(
            (overlap(text, other), other)
            for other, its in drawn
            if other != text and grade(meaning, its) == wanted
        )
        if not others:
            continue
        # Unlike messages share as many words as can be; half of the like ones as few as can be.
        hardest = others[0 if wanted >= 3 else -1]
        other = (rng.choice([hardest, rng.choice(others)]) if wanted >= 3 else hardest)[1]
        if frozenset((text, other)) not in seen:
            seen.add(frozenset((text, other)))
            pairs.append((text, other, wanted))
    rng.shuffle(pairs)
    return pairs


def main():
    """Writes the three files."""
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    for split, size in SPLITS.items():
        lines = ["\t".join(map(str, pair)) for pair in make_pairs(size, split)]
        path = folder / f"graded_{split}.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(f"{path.name}: {size} pairs")


if __name__ == "__main__":
    main()
