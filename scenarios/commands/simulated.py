"""`run --mode sim`: in virtual time, in this process."""

from argparse import Namespace

from scenarios.chaos.drawing import plan_of
from scenarios.commands.output import say
from scenarios.commands.running import begin, end
from scenarios.commands.shared import absolute, end_as_by_ctrl_c
from scenarios.load import check_load
from scenarios.plain import again
from scenarios.report.facts import of_simulated_run
from scenarios.report.outputs import Outputs
from scenarios.scenario import ScenarioError
from scenarios.simulation import commands
from scenarios.simulation.keepsake import Keepsake


def run_simulated(options: Namespace) -> int:
    """1 if an expectation did not hold. Raises ScenarioError."""
    scenario, seed, _ = begin(options)
    end_as_by_ctrl_c()
    reference = absolute(options.name)
    if options.nats is not None or options.data is not None:
        raise ScenarioError("--nats and --data go with --mode real: a simulation keeps nothing and needs no broker")
    check_load(scenario, seed, sequential=options.sequential)
    orders, concurrency = options.orders or scenario.orders, options.concurrency or scenario.concurrency
    keepsake = Keepsake() if Outputs(options.report, options.trace).wanted else None
    words = {"sequential": options.sequential, "chaos": options.chaos}
    plan = plan_of(scenario, seed, orders, concurrency, **words)
    result = commands.run_simulated(scenario, seed, plan, tell=say, keepsake=keepsake)
    repeat = again(reference, orders, concurrency, seed, **words, mode="sim")
    for line in commands.summary_of_run(result, repeat):
        say(line)
    return end(options, result, lambda: of_simulated_run(scenario, result, repeat, keepsake or Keepsake()))
