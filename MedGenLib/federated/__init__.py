"""Federated training with NVFlare: sites train one model together, and their images stay where they are.

Each site trains the same recipe for some steps a round, and the server averages what they changed. `federation` is what
all agreed on; `site` and `server` are the work without a network, `updates` what goes between them; `flare` and
`deployment` put them on NVFlare, which is imported inside functions only.
"""
