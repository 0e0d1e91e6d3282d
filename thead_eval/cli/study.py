"""theval study: people asked which of three videos of a person is fake."""

import json
import socket
from pathlib import Path

import click

from thead_eval.cli.options import numbers
from thead_eval.errors import ConfigError, RunError

STUDY = click.argument("study", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """Ask people which of three videos is fake, two being real: the USER of Zakharov et al. 2019.

    \b
    Examples:
      theval study make runs/first -o study/
      theval study serve study/ --participants 20
      theval study score study/
      theval report runs/first
    """


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of the study.")
@click.option("--generator", "generators", multiple=True, help="By name; again for each more. Default: all of the run.")
@click.option("--shots", callback=lambda *given: numbers(*given) if given[2] else (), help="Default: all of the run.")
@click.option("--identities", type=click.IntRange(1), default=50, show_default=True, help="So many people are shown.")
@click.option("--questions", type=click.IntRange(1), default=30, show_default=True, help="Asked of each participant.")
@click.option("--checks", type=click.IntRange(0), default=3, show_default=True, help="Attention checks among them.")
@click.option("--seconds", type=click.FloatRange(0.5), default=5.0, show_default=True, help="A video's longest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
def make(
    run: Path,
    out: Path,
    generators: tuple[str, ...],
    shots: tuple[int, ...],
    identities: int,
    questions: int,
    checks: int,
    seconds: float,
    seed: int,
) -> None:
    """Draw triplets from a run of 'theval score': two real videos and a fake of one person.

    One for each fake; who is asked sees --questions of them, every generator and number of shots equally often. Real
    videos come from the run's dataset where it is still there, else from the real clips of the run; they show other
    moments than the fake. All are encoded alike as H.264, without any mark: manifest.csv says which are synthetic.

    \b
    Examples:
      theval study make runs/first -o study/
      theval study make runs/first -o study/ --generator fewshot --shots 8,32 --questions 20
    """
    from benchmarks.study.folder import Settings, by_condition
    from benchmarks.study.triplets import make_study
    from thead_eval.cli.progress import progress_bars

    with progress_bars() as progress:
        settings = Settings(generators, shots, identities, questions, checks, seconds, seed)
        study = make_study(run, out, settings, progress)
    for triplets in by_condition(study.triplets).values():
        click.echo(f"{_words(triplets[0].labels)}: {len(triplets)} triplets")
    if study.failures:
        click.echo(f"{len(study.failures)} fakes have no triplet; the first: {study.failures[0].reason}", err=True)
    if not study.from_dataset:
        shortest = min(triplet.frames / triplet.fps for triplet in study.triplets)
        click.echo(
            f"Real videos are cut from the run's own real clips, as it has no dataset or that is not where it was: "
            f"the shortest shows {shortest:.1f} s.",
            err=True,
        )
    people = len({triplet.identity for triplet in study.triplets})
    asked = min(questions, len(study.triplets))
    if people < asked:
        click.echo(f"Only {people} people are shown: with {asked} questions, participants meet them again.", err=True)
    click.echo(f"Next: theval study serve {out}")


@command.command()
@STUDY
@click.option("--participants", type=click.IntRange(1), default=10, show_default=True, help="So many links in all.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 serves to the whole network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--url", help="How participants reach it, for the links. Default: by the host's name and port.")
def serve(study: Path, participants: int, host: str, port: int, url: str | None) -> None:
    """Serve the study, with a link for each participant.

    A link belongs to one person, goes on where they were, and is all that is known of them. Answers are kept one by
    one, so that this command can be stopped at any time and given again; links stay. Without --host only this machine
    reaches it.

    \b
    Examples:
      theval study serve study/
      theval study serve study/ --participants 40 --host 0.0.0.0 --url https://study.example.org
    """
    try:
        from benchmarks.study.server import listen
        from benchmarks.study.server import serve as serve_study
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"{error.name} is not installed; run 'pip install \"theval[study]\"'") from error
    from benchmarks.study.answers import Answers
    from benchmarks.study.folder import read_study

    made = read_study(study)
    answers = Answers(study / "answers.sqlite")
    opened = listen(host, port)
    answers.invite(made, participants)
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    base = (url or f"http://{name}:{opened.getsockname()[1]}").rstrip("/")
    if not url and host not in ("127.0.0.1", "::1", "localhost"):
        click.echo(
            "Links and answers travel unencrypted: beyond a network that you trust, use HTTPS (--url).", err=True
        )
    for one in answers.participants():
        click.echo(f"{base}/p/{one.token}  {one.answered} of {one.questions} answered")
    click.echo("A link for each participant. Ctrl-C stops; the same command goes on.", err=True)
    try:
        serve_study(study, answers, opened)
    except KeyboardInterrupt:
        click.echo(f"Stopped. Next: theval study score {study}", err=True)


@command.command()
@STUDY
@click.option("--run", type=click.Path(path_type=Path), help="The run folder, where it was moved since.")
@click.option("--json", "as_json", is_flag=True, help="Print measurements and counts as JSON.")
def score(study: Path, run: Path | None, as_json: bool) -> None:
    """How often people found the fake: the measurement 'user' of each generator and number of shots.

    1/3 is chance, and the nearer to it the better the fakes. The interval is over participants. Who was wrong in an
    attention check is not counted, and is told. The numbers enter the run, and with it 'theval report'.

    \b
    Examples:
      theval study score study/
      theval study score study/ --json
    """
    from benchmarks.study.answers import Answers
    from benchmarks.study.folder import read_study
    from benchmarks.study.score import attendance, measure
    from thead_eval.results import USER, read_measurements, read_run, write_measurements

    made = read_study(study)
    if not (study / "answers.sqlite").exists():
        raise RunError(f"'{study}' has no answers; ask people with 'theval study serve {study}'")
    run = run or Path(made.run)
    if read_run(run).started != made.run_started:
        raise RunError(f"'{run}' is another run than '{study}' was drawn from; name that with --run")
    store = Answers(study / "answers.sqlite")
    answers = store.all()
    if not answers:
        raise RunError(f"nobody has answered '{study}' yet; ask people with 'theval study serve {study}'")
    took_part = attendance(made, answers)
    rows = measure(made, answers)
    write_measurements(run, [*(row for row in read_measurements(run) if row.metric != USER), *rows])
    finished = sum(one.answered == one.questions for one in store.participants())
    counts = {
        "counted": len(took_part.judged),
        "failed_attention_check": len(took_part.inattentive),
        "left_before_attention_check": len(took_part.unchecked),
        "finished": finished,
    }
    if as_json:
        shown = [row.model_dump(mode="json") for row in rows]
        click.echo(json.dumps({"measurements": shown, "participants": counts}, indent=1, ensure_ascii=False))
        return
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.3f}"
        if row.low is not None and row.high is not None:
            value += f" [{row.low:.3f}, {row.high:.3f}]"
        click.echo(f"{_words(row.labels)}: {value}, {row.n_identities} participants, {row.n_frames} answers")
    click.echo("Success rate of participants with its 95 % interval; 0.333 is chance, lower is the better fake.")
    click.echo(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    click.echo(f"Next: theval report {run}")


def _words(labels: dict[str, str]) -> str:
    """'warp, 8-shot'."""
    return ", ".join(f"{value}-shot" if name == "shots" else value for name, value in labels.items())
