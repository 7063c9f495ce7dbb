"""The figures of backup, restore and check, of each tool with each dataset in new repositories."""
from datasets import count
from tools import Repository, take_turns


def run(settings, places, _parts, sheet):
    for dataset, src in places.items():
        base = settings.work / "run"
        who = [Repository(name, settings.programs[name], src, base / f"{name}-{dataset}") for name in settings.tools()]
        take_turns(settings, dataset, who, lambda turn, repository: one_life(sheet, dataset, turn, repository))


def one_life(sheet, dataset, turn, repository):
    def put(figure, took):
        sheet.put(repository.tool, dataset, figure, took.seconds, "s", turn=turn, cpu=took.cpu, memory=took.rss_mib, **took.noise())

    repository.create()
    put("backup, initial", repository.timed("backup"))
    sheet.put(repository.tool, dataset, "repository", count(repository.repo)[1] / 1e6, "MB", turn=turn)
    repository.names["name"] = "1"
    put("backup, unchanged", repository.timed("backup"))
    put("restore", repository.timed("restore"))
    repository.clear_out()
    put("check, all data", repository.timed("check"))
    repository.remember()
