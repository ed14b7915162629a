#pragma once

// Declares what is compiled once per instruction set, each time into a namespace of its own.
#ifdef FAIGFAST_X86
#define FAIGFAST_EACH_ISA(declare) declare(portable) declare(avx2) declare(avx512)
#else
#define FAIGFAST_EACH_ISA(declare) declare(portable)
#endif
