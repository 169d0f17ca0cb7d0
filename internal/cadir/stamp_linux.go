package cadir

import "golang.org/x/sys/unix"

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		size: st.Size, modified: st.Mtim.Nano(), changed: st.Ctim.Nano(), inode: st.Ino,
		kind: uint32(st.Mode) & unix.S_IFMT, mode: uint32(st.Mode) & 0o7777, uid: st.Uid, gid: st.Gid,
	}
}

// exchange swaps two directories at one instant.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// syncAll puts on disk all that was written to the file system of an open file.
func syncAll(fd int) error { return unix.Syncfs(fd) }
