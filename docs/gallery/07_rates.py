"""How fast flows approach their limit."""

import flowsim as fs

study = fs.limit_study(
    fs.DiagonalNetwork("u*v"), fs.datasets.diabetes(), ["1e-10", "1e-30", "1e-100", "1e-300", "1e-1000"]
)
fs.plot.limit_study(study)
