"""Small traces for the replay tests: a day of made-up requests, bursts included, from a seed."""

from random import Random

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def write(path, *lines, header=HEADER):
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def made_up(path, requests, seed=1):
    """Requests of about two seconds each, some in bursts, in the form of the Azure traces."""
    dice, now, lines = Random(seed), 0.0, []
    for _ in range(requests):
        now += 0 if dice.random() < 0.2 else dice.expovariate(2)
        minutes, seconds = divmod(now, 60)
        hours, minutes = divmod(int(minutes), 60)
        lines.append(
            f"2023-11-16 {hours:02d}:{minutes:02d}:{seconds:010.7f},{dice.randrange(4000)},{dice.randrange(300)}"
        )
    return write(path, *lines)
