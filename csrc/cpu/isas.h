#pragma once

// Declares functions that are compiled once per instruction set, each time in its own namespace.
#ifdef FAIGFAST_X86
#define FAIGFAST_EACH_ISA(declare) declare(portable) declare(avx2) declare(avx512)
#else
#define FAIGFAST_EACH_ISA(declare) declare(portable)
#endif
