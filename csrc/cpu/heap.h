#pragma once

namespace faigfast {

// Let the C library keep memory that is freed, or give it back from fixed thresholds, which are as
// high as those that it arrives at by itself and no longer adapts. A backward frees
// the end of the heap, which goes back to the system, and the next forward gets it page by page:
// first calls of attention networks took a fifteenth longer. Only glibc has this; an environment
// that sets its thresholds is left alone.
void keep_freed(bool keep);

// Give freed memory back now.
void trim_heap();

}  // namespace faigfast
