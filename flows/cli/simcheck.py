"""lyra simcheck: do worlds hold what is dropped into them?"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting

EXIT_FAILED = 1


def simcheck(
    uri: Annotated[str, typer.Argument(help="Where worlds are stored.")],
    where: Annotated[str, typer.Option("--where", help="Which worlds, as SQL over the table worlds.")] = "true",
    again: Annotated[bool, typer.Option("--again", help="Also those that were tried before.")] = False,
    as_json: AsJson = False,
) -> int:
    """Drop a ball, a box and a robot at the spawn point of each world, in MuJoCo; exit code 1 if one does not hold.

    Results and reasons are kept in the catalog (table simchecks, and worlds.drop_test_ok in queries). A world without a
    trusted floor or a free place is not tried, and the result says why. Needs lyra-worlds[sim].

    Examples:

      lyra simcheck ./worlds

      lyra simcheck s3://bucket/worlds --where "accepted AND up_source = 'floor'" --again
    """
    choose_json(as_json)
    from catalogs.commit import read_commit
    from catalogs.find import require_catalog
    from catalogs.query import query
    from catalogs.simchecks import list_simchecks, record_simcheck
    from lyra_core.extras import require
    from lyra_core.formats.store import open_store
    from tasks.simcheck import simcheck as try_world

    require("mujoco", "lyra simcheck", "sim")
    store = open_store(uri)
    require_catalog(store)
    wanted = query(store, f"SELECT world_id, name FROM worlds WHERE {where} ORDER BY name, world_id").to_pylist()
    known = {} if again else {record.world_id: record for record in list_simchecks(store)}
    results = []
    with waiting("simulating") as spinner:
        for number, row in enumerate(wanted):
            spinner.update(f"simulating: {number:,} of {len(wanted):,} worlds")
            result = known.get(row["world_id"])
            if result is None:
                result = try_world(store, read_commit(store, row["world_id"]).world)
                record_simcheck(store, result)
            results.append((row["name"], result))
    failed = sum(result.drop_test_ok is False for _, result in results)
    if as_json:
        print_json([{"name": name, **result.to_row()} for name, result in results])
        return EXIT_FAILED if failed else 0
    screen = console()
    held = sum(result.drop_test_ok is True for _, result in results)
    screen.print(
        f"{held:,} of {len(results):,} worlds hold, {failed:,} do not, {len(results) - held - failed:,} not tried"
    )
    for name, result in results:
        verdict = {True: "holds", False: "fails", None: "not tried"}[result.drop_test_ok]
        screen.print(styled(f"  {name or ''}  {result.world_id[:12]}  {verdict}  {'; '.join(result.reasons)}"))
    return EXIT_FAILED if failed else 0
