//go:build !linux

package cadir

import "golang.org/x/sys/unix"

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		size: st.Size, modified: st.Mtim.Nano(), changed: st.Ctim.Nano(), inode: uint64(st.Ino),
		kind: uint32(st.Mode) & unix.S_IFMT, mode: uint32(st.Mode) & 0o7777, uid: st.Uid, gid: st.Gid,
	}
}

// exchange would swap two directories at one instant.
func exchange(a, b string) error { return unix.ENOSYS }

// syncAll puts on disk all that was written.
func syncAll(fd int) error {
	unix.Sync()
	return nil
}
