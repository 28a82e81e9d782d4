"""The limit process itself: saddles in accelerated time."""

import flowsim as fs

fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), fs.datasets.diabetes()).plot()
