"""The self-configuring trainer: a data set in, a measured and installed model out.

    read_dataset -> inspect -> make_plan -> train each stage -> measure -> install

The networks, losses and loops are those of `MedGenLib.training`.
"""
