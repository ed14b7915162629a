// Included before the kernels where their memory is checked: what is asked for ahead is read, so
// that it has to be there.

#pragma once

#define FAIGFAST_ASK(line) ((void)*(const volatile float*)(line))
