"""What raycelery's processes say to each other, and what the dispatcher writes to its journal.

Everything is a dataclass whose docstring says who sends it to whom. :mod:`.codec` is the one place that encodes and
decodes; :mod:`.framing` cuts the byte stream and sees that both sides may talk and speak the same version.

=================  ==========================================================================
:mod:`.frames`     what a connection carries: a frame at a time
:mod:`.messages`   tasks on their way to an executor
:mod:`.reports`    what executors report of their messages and of themselves
:mod:`.operations` what processes write to the dispatcher's store
:mod:`.definitions` what must be known of an application before its messages can run
:mod:`.questions`  what a process may ask of the dispatcher, and what the answer is (:mod:`.bus_questions`:
                   of the bus of remote control and events)
:mod:`.records`    what only the journal holds
:mod:`.limits`     the bounds that an application sets for its dispatcher
=================  ==========================================================================
"""
