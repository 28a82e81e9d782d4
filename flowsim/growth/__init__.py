r"""Growth maps: what a start at scale alpha has grown to when its dual stands at z.

Whatever the data and the loss do, they act on a coordinate by ``z = -int g dt`` alone, ``beta_i = B_i(z_i, t)``. The
first three forms satisfy one protocol (:mod:`flowsim.growth.protocol`): value, slope and curvature of B, weights and
their logarithms, what they conserve, and the breakpoints of the dual as alpha vanishes.

============== ============================================= =================================================
form           networks                                      exact because
============== ============================================= =================================================
exponential    every quadratic formula; noise, weight decay  components are exponentials of z and t
product        products of L >= 3 weights                    one scalar equation a coordinate
curve          any other formula without noise               weights move along one curve, tabulated as needed
frame          two-layer linear networks; noise, decay       ``Z' = S Z`` is linear
============== ============================================= =================================================
"""
