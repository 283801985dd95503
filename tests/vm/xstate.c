/*
 * Preloaded into Debian's User-Mode Linux: hands ptrace a register set as large as this CPU's.
 *
 * UML up to 6.12 knows a set of 2,696 bytes (AVX-512 and PKRU). On a CPU with a larger one (AMX: 11,008) the kernel
 * answers PTRACE_SETREGSET with EFAULT, and UML panics. No libc is linked: it must load into any.
 */
struct iovec {
	void *base;
	unsigned long length;
};

extern long syscall(long, ...);
extern int *__errno_location(void);

#define SYS_PTRACE 101L
#define PTRACE_SETREGSET 0x4205
#define NT_X86_XSTATE 0x202

static unsigned size;
static unsigned char set[65536];

__attribute__((constructor)) static void
measure(void)
{
	unsigned a = 0xd, b, c = 0, d; /* CPUID leaf 13, EBX: size of the set in use */

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	size = b;
}

long
ptrace(long request, long pid, void *address, void *data)
{
	struct iovec *given = data, padded;
	unsigned long i, peeked;
	int peeks;
	long result;

	request = (int)request;
	if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE && given->length < size && size <= sizeof set) {
		for (i = 0; i < size; i++)
			set[i] = i < given->length ? ((unsigned char *)given->base)[i] : 0;
		padded.base = set;
		padded.length = size;
		return syscall(SYS_PTRACE, request, (long)(int)pid, address, &padded);
	}
	/* As libc does: the PEEK requests return what they read. */
	peeks = request > 0 && request < 4;
	result = syscall(SYS_PTRACE, request, (long)(int)pid, address, peeks ? (void *)&peeked : data);
	if (peeks && result >= 0) {
		*__errno_location() = 0;
		return peeked;
	}
	return result;
}
