"""Files whose tests mostly start processes, train, or index, in the order of their folders.

`make test-fast` leaves them out, so that it takes less than a minute. Single slow tests in other files are marked where
they stand.
"""

SLOW_FILES = [
    "backbones/test_tokenizer.py",
    "benchmarks/test_demo.py",
    "benchmarks/test_mini.py",
    "benchmarks/test_pretrain.py",
    "cli/test_bad_input.py",
    "cli/test_commands.py",
    "cli/test_memory.py",
    "cli/test_next_steps.py",
    "cli/test_searching.py",
    "cli/test_serve.py",
    "cli/test_stopping.py",
    "cli/test_threads_option.py",
    "evaluation/test_figures.py",
    "experiments/*.py",
    "search/test_companions.py",
    "search/test_index.py",
    "search/test_index_robust.py",
    "search/test_integrity.py",
    "search/test_interrupted.py",
    "search/test_store_killed.py",
    "search/test_outdated.py",
    "search/test_prune.py",
    "search/test_reembed.py",
    "search/test_vector_index.py",
    "server/*.py",
    "training/test_job.py",
    "training/test_trainer.py",
    "utils/test_isolation.py",
    "test_startup.py",
]
