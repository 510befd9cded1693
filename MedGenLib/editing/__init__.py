"""What `MedGenLib.editing.session` is made of: where an edit lies, what is known there, what it changed."""
