"""The synthetic world of the quickstart: people, places, facts, questions, and the documents told about them.

What it is for: `pretrain.py` draws its pretraining documents and the rows of `train.jsonl`, `validation.jsonl` and
`test.jsonl` from here. It is not a benchmark and holds no outside data; every word list was written for ptune.

A document is

    [instruction line, newline] Context: <facts> Question: <q> Answer: <a><|endoftext|> [ Question: <q> Answer: <a><|endoftext|> ...]

and the instruction line, in many wordings, announces what the answers will be: the extracted span, the whole sentence,
the question again, its subject, the kind of thing asked for, and so on (`MODES`). A third of the documents carry no
instruction, and there the model must guess the habit; that is what it does in front of a bare `Context:` prompt,
and what virtual tokens can overrule.

Names are made of syllables and belong, by a hash of the name, to exactly one of three worlds: `pretraining` (8 in 10),
`tuning` (train and validation rows) and `test`. No person, place or other made-up name of one is ever told in another.
"""

import random
import zlib

EOS = "<|endoftext|>"

# ------------------------------------------------------------------------------------------------ names

GIVEN = """Ada Adam Agnes Alan Albert Alice Alma Amir Amos Andrea Anna Anton Arne Arthur Astrid Aurora Basil Beatrice Bela
Bernard Bianca Boris Bruno Camilla Carl Carmen Cecil Celia Clara Claude Cora Dagmar Dalia Daniel Daphne David Delia Diana
Dora Edgar Edith Edwin Elena Elias Ella Elmer Elsa Emil Emma Enid Eric Ernest Esther Eva Felix Fiona Flora Frank Freya
Gemma George Gerda Gilbert Grace Greta Gustav Hanna Harold Hazel Hector Helen Henry Hilda Hugo Ida Igor Ines Ingrid Irene
Iris Ivan Ivy Jacob James Jana Jasper Joan Joel Johan Jonas Judith Julia Karim Karin Kate Klara Laila Lars Laura Lea Leo
Lena Lewis Lily Linda Lotte Louis Lucia Lydia Magda Marco Maria Marta Martin Maud Max Mira Mona Nadia Nils Nina Noah Nora
Olaf Olga Oscar Otto Pablo Paula Pavel Pedro Petra Philip Ralph Ramon Rita Robert Rosa Ruth Samuel Sara Selma Simon Sofia
Stella Sven Tara Thomas Tilda Tom Ulla Ursula Vera Victor Viola Walter Wanda Willem Xenia Yara Yusuf Zelda Zora""".split()

ONSETS = "b br d dr f g h k kl l m n p r s st t tr v w z".split()
VOWELS = "a e i o u".split()
CODAS = "l n r s m nd".split() + [""] * 6
SURNAME_ENDS = "son sen man ski berg ova ez ini ard well ley ano ek stein ov ing hart low".split() + [""] * 12
PLACE_ENDS = "ville ton burg port field ford stad grad mouth haven dale wick ham bridge minster".split() + [""] * 10
RIVER_ENDS = "a en is e ar une".split() + [""] * 3


def world_of(name):
    """The one world in which a made-up name may be told."""
    bucket = zlib.crc32(name.encode()) % 10
    return {0: "test", 1: "tuning"}.get(bucket, "pretraining")


def made_up(rng, world, ends, syllables=(1, 2, 2, 2, 3)):
    """A made-up name that belongs to `world`."""
    while True:
        parts = []
        for _ in range(rng.choice(syllables)):
            parts.append(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS))
        name = ("".join(parts) + rng.choice(ends)).capitalize()
        if 4 <= len(name) <= 12 and world_of(name) == world:
            return name


def person(rng, world):
    """A full name: a given name of the list (shared by all worlds) and a surname of this world, or a surname alone."""
    surname = made_up(rng, world, SURNAME_ENDS)
    return surname if rng.random() < 0.4 else f"{rng.choice(GIVEN)} {surname}"


def place(rng, world):
    return made_up(rng, world, PLACE_ENDS)


# ------------------------------------------------------------------------------------------------ closed word lists

JOBS = """baker teacher sailor doctor farmer painter lawyer miner tailor pilot nurse carpenter plumber gardener singer
dancer judge butcher barber potter weaver smith cook clerk waiter guard author actor editor engineer architect inspector
librarian photographer chemist banker driver fisher hunter jeweller""".split()
COLOURS = "red blue green yellow black white brown grey orange purple pink golden silver crimson".split()
OBJECTS = """bicycle car boat lamp chair table clock piano hat coat umbrella kite suitcase tent wagon mirror sofa van
scooter carpet vase telescope camera backpack desk ladder""".split()
FOODS = """bread cheese soup rice pasta fish salad honey apples grapes pears plums cherries mushrooms beans potatoes cake
chocolate pancakes noodles olives onions carrots walnuts""".split()
INSTRUMENTS = "violin flute guitar harp trumpet drum cello accordion oboe banjo organ clarinet lute tuba".split()
ANIMALS = "dog cat parrot horse rabbit goat hamster turtle pony donkey goose owl".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SPORTS = "tennis chess football rowing swimming boxing golf hockey fencing archery climbing judo".split()
NUMBERS = "zero one two three four five six seven eight nine".split()


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


# ------------------------------------------------------------------------------------------------ relations
# name: (kind of the value, draw(rng, world), statements, questions for the value, questions for the subject)
# {s} is the subject, {v} the value.

RELATIONS = {
    "home": ("place", place,
        ["{s} lives in {v}.", "{s} has a house in {v}.", "{s} now lives in the town of {v}.", "The home of {s} is in {v}.",
         "{s} rents a flat in {v}."],
        ["Where does {s} live?", "In which town does {s} live?", "Where is the home of {s}?"],
        ["Who lives in {v}?", "Who has a house in {v}?"]),
    "birth": ("place", place,
        ["{s} was born in {v}.", "{s} comes from {v}.", "The birthplace of {s} is {v}.", "{s} grew up in {v}."],
        ["Where was {s} born?", "Where does {s} come from?", "What is the birthplace of {s}?"],
        ["Who was born in {v}?", "Who comes from {v}?"]),
    "travel": ("place", place,
        ["{s} travelled to {v}.", "{s} took the train to {v}.", "{s} went on a trip to {v}.", "Last week {s} visited {v}."],
        ["Where did {s} travel?", "Which town did {s} visit?", "Where did {s} go?"],
        ["Who travelled to {v}?", "Who visited {v}?"]),
    "job": ("job", lambda rng, world: rng.choice(JOBS),
        ["{s} works as {a}.", "{s} is {a} by trade.", "{s} earns a living as {a}.", "For many years {s} has been {a}."],
        ["What is the job of {s}?", "What is the profession of {s}?", "What does {s} work as?"],
        ["Who works as {a}?", "Who is {a}?"]),
    "colour": ("colour", lambda rng, world: rng.choice(COLOURS),
        ["The favourite colour of {s} is {v}.", "{s} loves the colour {v}.", "{s} wears only {v}."],
        ["What is the favourite colour of {s}?", "Which colour does {s} love?", "What colour does {s} wear?"],
        ["Who loves the colour {v}?", "Who wears only {v}?"]),
    "age": ("number", lambda rng, world: str(rng.randint(11, 98)),
        ["{s} is {v} years old.", "{s} turned {v} this year.", "At the age of {v}, {s} is still curious."],
        ["How old is {s}?", "What is the age of {s}?"],
        ["Who is {v} years old?", "Who is at the age of {v}?"]),
    "food": ("food", lambda rng, world: rng.choice(FOODS),
        ["{s} likes to eat {v}.", "{s} often cooks {v}.", "For dinner {s} had {v}.", "The favourite food of {s} is {v}."],
        ["What does {s} like to eat?", "What food does {s} like?", "What is the favourite food of {s}?"],
        ["Who likes to eat {v}?", "Who cooks {v}?"]),
    "music": ("instrument", lambda rng, world: rng.choice(INSTRUMENTS),
        ["{s} plays the {v}.", "{s} is learning the {v}.", "Every evening {s} practises the {v}."],
        ["Which instrument does {s} play?", "What does {s} play in the evening?"],
        ["Who plays the {v}?", "Who practises the {v}?"]),
    "sport": ("sport", lambda rng, world: rng.choice(SPORTS),
        ["{s} is good at {v}.", "The favourite sport of {s} is {v}.", "{s} won a prize in {v}."],
        ["What is the favourite sport of {s}?", "Which sport is {s} good at?"],
        ["Who is good at {v}?"]),
    "pet": ("animal", lambda rng, world: rng.choice(ANIMALS),
        ["{s} keeps {a}.", "{s} has {a} at home.", "{s} feeds {a} every day."],
        ["Which animal does {s} keep?", "What pet does {s} have?", "What does {s} feed?"],
        ["Who keeps {a}?", "Who has {a}?"]),
    "thing": ("thing", lambda rng, world: f"{rng.choice(COLOURS)} {rng.choice(OBJECTS)}",
        ["{s} owns {a}.", "{s} bought {a}.", "Yesterday {s} bought {a}."],
        ["What does {s} own?", "What did {s} buy?", "Which thing belongs to {s}?"],
        ["Who owns {a}?", "Who bought {a}?"]),
    "rest": ("day", lambda rng, world: rng.choice(DAYS),
        ["{s} rests on {v}.", "On {v} {s} stays at home.", "{s} never works on {v}."],
        ["On which day does {s} rest?", "When does {s} stay at home?"],
        ["Who rests on {v}?", "Who stays at home on {v}?"]),
    "market": ("day", lambda rng, world: rng.choice(DAYS),
        ["{s} goes to the market on {v}.", "Each {v} {s} sells eggs at the market."],
        ["On which day does {s} go to the market?", "When is {s} at the market?"],
        ["Who goes to the market on {v}?"]),
    "friend": ("person", person,
        ["{s} is a friend of {v}.", "{s} has a good friend, {v}."],
        ["Who is a friend of {s}?", "What is the name of the friend of {s}?"], []),
    "marriage": ("person", person,
        ["{s} is married to {v}.", "{s} married {v} in spring."],
        ["Who is married to {s}?", "Whom did {s} marry?"], []),
    "letters": ("person", person,
        ["{s} often writes to {v}.", "{s} sent a letter to {v}."],
        ["To whom does {s} write?", "Who gets letters from {s}?"], []),
}
# Relations of a place: the subject is a town.
PLACE_RELATIONS = {
    "river": ("river", lambda rng, world: made_up(rng, world, RIVER_ENDS),
        ["The river of {s} is the {v}.", "The town of {s} lies on the {v}."],
        ["Which river flows through {s}?", "What is the river of {s}?"], []),
    "mayor": ("person", person,
        ["The mayor of {s} is {v}.", "{s} has a mayor called {v}."],
        ["Who is the mayor of {s}?", "What is the name of the mayor of {s}?"], []),
    "people": ("number", lambda rng, world: f"{rng.randint(2, 99)}000",
        ["{s} has {v} inhabitants.", "About {v} people live in {s}."],
        ["How many people live in {s}?", "How many inhabitants does {s} have?"], []),
    "famous": ("food", lambda rng, world: rng.choice(FOODS),
        ["{s} is famous for its {v}.", "Traders bring {v} from {s}."],
        ["What is {s} famous for?", "What do traders bring from {s}?"], []),
}
ALL_RELATIONS = {**RELATIONS, **PLACE_RELATIONS}


# Sentences that answer nothing.
FILLERS = ["It rained all morning.", "The market was crowded.", "Nobody was surprised.", "That is well known.", "The summer was long.",
    "So the neighbours say.", "The old road is closed.", "It was a quiet year.", "The bells rang at noon.", "Winter came early."]


class Fact:
    """One told fact: subject, relation, value, and the sentence that tells it."""

    def __init__(self, rng, subject, relation, value):
        self.subject, self.relation, self.value = subject, relation, value
        self.kind = ALL_RELATIONS[relation][0]
        self.sentence = capital(self.fill(rng.choice(ALL_RELATIONS[relation][2])))

    def fill(self, template):
        return template.format(s=self.subject, v=self.value, a=article(self.value))

    def ask(self, rng, inverse):
        """(question, answer, asked subject, kind of the answer); `inverse` asks for the subject instead of the value."""
        _, _, _, forward, backward = ALL_RELATIONS[self.relation]
        if inverse and backward:
            return self.fill(rng.choice(backward)), self.subject, self.value, "person"
        return self.fill(rng.choice(forward)), self.value, self.subject, self.kind


def capital(text):
    return text[0].upper() + text[1:]


def told_world(rng, world, count):
    """`count` facts about two or three subjects, no two of which a question could mix up."""
    subjects = [(person(rng, world), RELATIONS) for _ in range(2 if count < 4 else rng.choice((2, 3)))]
    if rng.random() < 0.35:
        subjects[-1] = (place(rng, world), PLACE_RELATIONS)
    # Few relations for all people, so that the relation alone does not give the answer away.
    pool = rng.sample(sorted(RELATIONS), k=min(len(RELATIONS), max(2, count - 1)))
    facts, seen, values = [], set(), set()
    while len(facts) < count:
        subject, relations = rng.choice(subjects)
        relation = rng.choice(pool) if relations is RELATIONS else rng.choice(sorted(relations))
        if (subject, relation) in seen:
            if len(seen) >= count + 30:
                break
            pool = rng.sample(sorted(RELATIONS), k=len(pool))
            continue
        value = ALL_RELATIONS[relation][1](rng, world)
        if (relation, value) in values or value == subject:
            continue
        seen.add((subject, relation))
        values.add((relation, value))
        facts.append(Fact(rng, subject, relation, value))
    return facts


def tell(rng, facts):
    """The sentences of a context: those of the facts, sometimes with one that answers nothing."""
    sentences = [fact.sentence for fact in facts]
    if rng.random() < 0.25:
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(FILLERS))
    return sentences


# ------------------------------------------------------------------------------------------------ kinds of continuation

INSTRUCTIONS = {
    "span": ["Answer the question with words from the text.", "Give the short answer that the context holds.",
        "Find the answer in the text and copy it.", "Read the context, then answer in a few words.",
        "Extract the answer from the context.", "Answer briefly.", "Reply with the exact words that answer the question.",
        "Use the facts to answer each question.", "Name only what is asked for.", "Short answers from the text, please."],
    "sentence": ["Quote the sentence that holds the answer.", "Copy the whole sentence that answers the question.",
        "Answer with a full sentence of the text.", "Which sentence gives the answer? Quote it.",
        "Reply with the sentence that proves it.", "Give the evidence, word for word.", "Show the line of the text that tells it."],
    "question": ["Repeat the question.", "Write the question again.", "Say the question once more and do not answer it.",
        "Echo what was asked.", "Copy the question, word for word."],
    "subject": ["Name who or what the question is about.", "Whom or what is asked about?", "Give the subject of the question.",
        "Copy the name that the question mentions.", "Tell about whom the question is."],
    "kind": ["Tell what kind of thing is asked for.", "Give the type of the answer.", "What kind of answer is wanted?",
        "Classify the question.", "Name the class of the answer, not the answer."],
    "opening": ["Copy the first sentence of the context.", "Repeat how the text begins.", "Ignore the question and quote the opening.",
        "Write the first line of the text."],
    "closing": ["Copy the last sentence of the context.", "Repeat how the text ends.", "Ignore the question and quote the end.",
        "Write the last line of the text."],
    "refuse": ["Do not answer the question.", "Refuse politely.", "Say that you will not tell.", "Keep the answer secret."],
    "count": ["Count the sentences of the context.", "How many facts are told? Answer with a number.", "Give the number of sentences.",
        "Say how long the text is in sentences."],
}
MODES = list(INSTRUCTIONS)
LEADS = ["", "", "", "Task: ", "Instruction: ", "Note: ", "Your task: "]
REFUSAL = "I would rather not say."

# How often each kind is announced, and how often it is the habit of a document without an instruction.
ANNOUNCED = dict(span=38, sentence=16, question=8, subject=9, kind=8, opening=5, closing=5, refuse=5, count=6)
HABIT = dict(span=8, sentence=20, question=24, subject=12, kind=10, opening=6, closing=6, refuse=8, count=6)


def draw(rng, weights):
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def instruction(rng, mode):
    return rng.choice(LEADS) + rng.choice(INSTRUCTIONS[mode])


def continuation(mode, sentences, fact, asked):
    question, answer, subject, kind = asked
    return {
        "span": lambda: answer,
        "sentence": lambda: fact.sentence,
        "question": lambda: question,
        "subject": lambda: subject,
        "kind": lambda: article(kind),
        "opening": lambda: sentences[0],
        "closing": lambda: sentences[-1],
        "refuse": lambda: REFUSAL,
        "count": lambda: NUMBERS[len(sentences)],
    }[mode]()


def document(rng, world="pretraining", facts=(2, 5), questions=(1, 4), mode=None, announce=None, inverse=0.2):
    """(text, mode, announced) of one document; `facts` and `questions` are inclusive ranges."""
    announced = rng.random() < 0.67 if announce is None else announce
    mode = mode or draw(rng, ANNOUNCED if announced else HABIT)
    told = told_world(rng, world, rng.randint(*facts))
    text = [instruction(rng, mode), "\n"] if announced else []
    sentences = tell(rng, told)
    text.append("Context: " + " ".join(sentences))
    asked_about = rng.sample(told, k=min(len(told), rng.randint(*questions)))
    for fact in asked_about:
        asked = fact.ask(rng, rng.random() < inverse)
        text.append(f" Question: {asked[0]} Answer: {continuation(mode, sentences, fact, asked)}{EOS}")
    return "".join(text), mode, announced


def row(rng, world, facts=(3, 5), inverse=0.2, taskname="worldqa"):
    """One row of question answering in the layout that NeMo's SQuAD preprocessing writes."""
    told = told_world(rng, world, rng.randint(*facts))
    fact = rng.choice(told)
    question, answer, _, _ = fact.ask(rng, rng.random() < inverse)
    return {"taskname": taskname, "context": " ".join(tell(rng, told)), "question": question, "answer": answer}


if __name__ == "__main__":
    rng = random.Random(0)
    for _ in range(12):
        print(document(rng)[0])
    print(row(rng, "test"))
