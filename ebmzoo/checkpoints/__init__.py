"""Files of models: written whole, read as tensors and plain data only, and made into a model again."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .models import check_fits as check_fits
    from .models import check_whole as check_whole
    from .models import export as export
    from .models import load as load
    from .models import method_class as method_class
    from .models import newest_good as newest_good
    from .models import read as read
    from .models import restore as restore
    from .models import stored_config as stored_config
    from .storage import WholeFiles as WholeFiles
    from .storage import write_whole as write_whole
    from .trust import check_trusted as check_trusted
    from .trust import modules_to_trust as modules_to_trust
    from .trust import trusted as trusted
else:
    attach(__name__)
