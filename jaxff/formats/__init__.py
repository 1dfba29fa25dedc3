"""Files of AMBER, GROMACS, OpenMM and mol2."""

from jaxff.formats.amber import read_amber, read_inpcrd
from jaxff.formats.force_fields import read_force_field, write_force_field

__all__ = ["read_amber", "read_force_field", "read_inpcrd", "write_force_field"]
