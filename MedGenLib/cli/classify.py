"""`medgen classify`: the class of an image."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.commands import command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table


@command(
    "classify",
    "find the class of an image",
    "The probabilities are calibrated on people that the model was not trained on; they are no diagnosis. The model "
    "comes from `medgen train DATASET --recipe image-classifier`.",
)
def classify(arguments: Namespace, console: Console) -> int:
    """Print the probabilities, and write them and the saliency map."""
    from MedGenLib.classification import classify as find
    from MedGenLib.io.atomic import Outputs, write_json
    from MedGenLib.io.files import WRITABLE, check_output_path, write_volume
    from MedGenLib.io.pictures import read_image
    from MedGenLib.options import validate

    options = validate("classify", from_namespace("classify", arguments))
    files = [(arguments.output, (".json",)), (arguments.saliency, WRITABLE)]
    paths = [check_output_path(path, suffixes, new_folder=True) for path, suffixes in files if path is not None]
    with Outputs(paths, overwrite=arguments.overwrite, keep=[arguments.image]) as outputs:
        image = read_image(arguments.image, arguments.modality, arguments.series, arguments.hu_offset)
        found = find(**{**options, "image": image}, progress=console)
        if arguments.output is not None:
            write_json(outputs.staged(arguments.output), {"image": arguments.image.name, **found.as_dict()})
        if arguments.saliency is not None:
            write_volume(found.saliency, outputs.staged(arguments.saliency))
        outputs.commit()
    console.wrote(*outputs.paths)
    rows = sorted(found.probabilities.items(), key=lambda pair: -pair[1])
    console.say(table(("class", "probability"), [(name, f"{share:.3f}") for name, share in rows]))
    console.note(found.notes[-1])
    return 0
