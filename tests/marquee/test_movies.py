import pytest

from marquee.movies import parse_title


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("  Blind Side, The  (2009) ", "The Blind Side", 2009),
        ("Misérables, Les (1998)", "Les Misérables", 1998),
        ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960),
        ("Hate (Haine, La) (1995)", "Hate (La Haine)", 1995),
        ("Postman, The (Postino, Il) (1994)", "The Postman (Il Postino)", 1994),
        ("Trou, Le (Hole, The) (Night Watch, The) (1960)", "Le Trou (The Hole) (The Night Watch)", 1960),
        ("Suriyothai (a.k.a. Legend of Suriyothai, The) (2001)", "Suriyothai (a.k.a. The Legend of Suriyothai)", 2001),
        ("Crow, The: Wicked Prayer (2005)", "The Crow: Wicked Prayer", 2005),
        ("Good, the Bad and the Ugly, The (1966)", "The Good, the Bad and the Ugly", 1966),
        ("Honey, I Shrunk the Kids (1989)", "Honey, I Shrunk the Kids", 1989),
        ("Daddy, I'm A Zombie (2012)", "Daddy, I'm A Zombie", 2012),
        (
            "Strike! (a.k.a. All I Wanna Do, The Hairy Bird) (1998)",
            "Strike! (a.k.a. All I Wanna Do, The Hairy Bird)",
            1998,
        ),
    ],
)
def test_title_reads_as_a_person_says_it(raw: str, title: str, year: int) -> None:
    assert parse_title(raw) == (title, year)


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", 2006),
        ("Big Bang Theory, The (2007-)", "The Big Bang Theory", 2007),
        ("Modern Family (2009– )", "Modern Family", 2009),
        ("Mona (Mona ja palavan rakkauden aika) (1983))", "Mona (Mona ja palavan rakkauden aika)", 1983),
        ("2012 (2009)", "2012", 2009),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("Moonlight", "Moonlight", None),
        ("Room (1408)", "Room (1408)", None),
        ("(2000)", "(2000)", None),
        ("", "", None),
    ],
)
def test_year_is_the_last_bracket_where_that_holds_one(raw: str, title: str, year: int | None) -> None:
    assert parse_title(raw) == (title, year)
