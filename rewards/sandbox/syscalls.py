"""Numbers of the system calls that the seccomp filter names, for the machines rayzero runs on.

From the kernel's asm/unistd_64.h and asm-generic/unistd.h; a call that an architecture never had is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_TABLE = """
acct 163 89; add_key 248 217; adjtimex 159 171; bind 49 200; bpf 321 280; chmod 90 -; chown 92 -; chroot 161 51;
clock_adjtime 305 266; clock_settime 227 112; clone 56 220; clone3 435 435; connect 42 203; create_module 174 -;
delete_module 176 106; fanotify_init 300 262; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; fchown 93 55;
fchownat 260 54; fcntl 72 25; fgetxattr 193 10; file_getattr 468 468; file_setattr 469 469; finit_module 313 273;
flistxattr 196 13; fremovexattr 199 16; fsconfig 431 431; fsetxattr 190 7; fsmount 432 432; fsopen 430 430;
fspick 433 433; futimesat 261 -; get_robust_list 274 100; getxattr 191 8; getxattrat 464 464; init_module 175 105;
inotify_init 253 -; inotify_init1 294 26; io_setup 206 0; io_uring_enter 426 426; io_uring_register 427 427;
io_uring_setup 425 425; ioctl 16 29; ioperm 173 -; iopl 172 -; ioprio_set 251 30; kcmp 312 272;
kexec_file_load 320 294; kexec_load 246 104; keyctl 250 219; lchown 94 -; lgetxattr 192 9; listmount 458 458;
listxattr 194 11; listxattrat 465 465; llistxattr 195 12; lookup_dcookie 212 18; lremovexattr 198 15; lsetxattr 189 6;
mbind 237 235; memfd_create 319 279; memfd_secret 447 447; migrate_pages 256 238; modify_ldt 154 -; mount 165 40;
mount_setattr 442 442; move_mount 429 429; move_pages 279 239; mq_getsetattr 245 185; mq_notify 244 184;
mq_open 240 180; mq_timedreceive 243 183; mq_timedsend 242 182; mq_unlink 241 181; msgctl 71 187; msgget 68 186;
msgrcv 70 188; msgsnd 69 189; name_to_handle_at 303 264; nfsservctl 180 42; open_by_handle_at 304 265;
open_tree 428 428; open_tree_attr 467 467; perf_event_open 298 241; personality 135 92; pidfd_getfd 438 438;
pivot_root 155 41; prctl 157 167; prlimit64 302 261; process_madvise 440 440; process_mrelease 448 448;
process_vm_readv 310 270; process_vm_writev 311 271; ptrace 101 117; quotactl 179 60; quotactl_fd 443 443;
reboot 169 142; removexattr 197 14; removexattrat 466 466; request_key 249 218; sched_setaffinity 203 122;
sched_setattr 314 274; sched_setparam 142 118; sched_setscheduler 144 119; semctl 66 191; semget 64 190; semop 65 193;
semtimedop 220 192; sendmmsg 307 269; sendmsg 46 211; set_mempolicy 238 237; setdomainname 171 162;
sethostname 170 161; setns 308 268; setpgid 109 154; setpriority 141 140; setsid 112 157; settimeofday 164 170;
setxattr 188 5; setxattrat 463 463; shmat 30 196; shmctl 31 195; shmget 29 194; socket 41 198; socketpair 53 199;
statmount 457 457; swapoff 168 225; swapon 167 224; sync 162 81; syncfs 306 267; _sysctl 156 -; sysfs 139 -;
syslog 103 116; timer_create 222 107; umount2 166 39; unshare 272 97; uselib 134 -; userfaultfd 323 282; ustat 136 -;
utime 132 -; utimensat 280 88; utimes 235 -; vhangup 153 58; vmsplice 278 75
"""


FIRST_UNKNOWN = 470
"""Numbers from here on are calls that this table's author has not seen: newer kernels', and x32's own."""


@dataclass(frozen=True)
class Architecture:
    """One machine type as seccomp sees it."""

    name: str
    audit: int
    """AUDIT_ARCH_*: a call from any other (i386 on x86_64) is killed."""
    numbers: Mapping[str, int]
    foreign_bit: int
    """Numbers at or past this belong to another ABI (x32); 0 where there is none."""


def _column(index: int) -> dict[str, int]:
    rows = (entry.split() for entry in _TABLE.replace("\n", " ").split(";"))
    return {row[0]: int(row[index]) for row in rows if row and row[index] != "-"}


ARCHITECTURES: Mapping[str, Architecture] = {
    "x86_64": Architecture("x86_64", 0xC000003E, _column(1), 0x40000000),
    "aarch64": Architecture("aarch64", 0xC00000B7, _column(2), 0),
}
