#pragma once

namespace faigfast {

// Lets the C library keep freed memory, or return it to the system at fixed thresholds: the highest
// that glibc adapts to by itself. Otherwise a backward returns the end of the heap, and the next
// forward gets it back page by page: first calls of attention networks took a fifteenth longer.
// Only glibc has this; an environment that sets the thresholds is left alone.
void keep_freed(bool keep);

// Gives freed memory back to the system now.
void trim_heap();

}  // namespace faigfast
