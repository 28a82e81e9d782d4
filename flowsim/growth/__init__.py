r"""Growth maps: beta as a function of the dual z, for a start at scale alpha.

Data and loss act on a coordinate through ``z = -int g dt`` alone: ``beta_i = B_i(z_i, t)``. The
first three forms satisfy one protocol (:mod:`flowsim.growth.protocol`): value and slope of B, weights and their
logarithms, and what they conserve.

============== ============================================= =================================================
form           networks                                      exact because
============== ============================================= =================================================
exponential    every quadratic formula; noise, weight decay  components are exponentials of z and t
product        products of L >= 3 weights                    one scalar equation a coordinate
curve          any other formula without noise               weights move along one curve, tabulated as needed
frame          two-layer linear networks; noise, decay       ``Z' = S Z`` is linear in Z
============== ============================================= =================================================

Read `protocol`, then `exponential` (with `modes`), `product_map` (with `product`), `curve_map` (with `curve`,
`curve_table` and `formula_origin`). Formulas of order L >= 3 at vanishing scale are read by the distance of z
from a blow-up: `blow_up`, `branch`, `blow_up_map`; products with noise or decay by `shrinking_map`. `vanishing`,
`arrivals` and `origin_curves` are the maps in the limit alpha -> 0; `response` takes maps as inverse mirror maps.
Linear networks: `frame` and `couplings`. `continuation` starts from the state of an earlier run.
"""
