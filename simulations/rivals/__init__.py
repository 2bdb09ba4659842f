"""Published strategies, written anew from their papers, one module per family.

Each is a function of a :class:`simulations.view.SelectionView` restricted to some places: the open
and labelled samples of one site, or of all sites where the rule can be stretched to the union.
They may look at whatever their paper lets them look at; no device or coordinator imports them.
"""
