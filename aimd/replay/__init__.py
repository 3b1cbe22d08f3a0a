"""What a trace of real requests would have met under the dispatch core and under simpler policies, in virtual time.

    trace  ->  workload  ->  run (one per policy and load)  ->  score  ->  report, plot

The core is the compiled one, called through its face; everything around it is a simulation: service times follow a
declared cost model, classes and deadlines that the trace does not name are drawn from a seed, and the clock is a number.
Known to the `aimd replay` command alone; the daemon does not import it.
"""
