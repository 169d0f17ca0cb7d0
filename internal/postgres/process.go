package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// processes are the ids of those that run PostgreSQL in the data directory: the
// postmaster, and what it leaves behind for a moment if it is killed, which can still
// commit; and what a rejoin left behind that was killed. All these stay in the data
// directory, so a pid file that is left over, whose number somebody else has now,
// misleads nobody.
func processes(data string) ([]int, error) {
	want, err := os.Stat(data)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("looking for the server's processes: %w", err)
	}
	names, err := readNames("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking for the server's processes: %w", err)
	}
	postmaster := pidFile(data)
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", name)
		cwd, err := os.Stat(filepath.Join(dir, "cwd"))
		switch {
		case errors.Is(err, os.ErrPermission):
			// Another user's, and this process is not root with CAP_SYS_PTRACE: by its name
			// and its parent. The number in a pid file that is left over may be anybody's.
			if name, parent := stat(pid); name == "postgres" && postmaster != 0 && (pid == postmaster || parent == postmaster) {
				pids = append(pids, pid)
			}
			continue
		case err != nil || !os.SameFile(cwd, want):
			continue
		}
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil {
			continue
		}
		switch base, _, _ := strings.Cut(filepath.Base(exe), " "); base { // " (deleted)", after an upgrade
		case "postgres", "pg_rewind", "pg_basebackup":
			pids = append(pids, pid)
		default: // a shell of somebody who looks around, or it has ended
		}
	}
	return pids, nil
}

// stat is a process's name and parent, which everybody may see (proc(5), /proc/PID/stat).
func stat(pid int) (name string, parent int) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0
	}
	text := string(data)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return "", 0
	}
	if _, err := fmt.Sscanf(text[end+1:], " %c %d", new(rune), &parent); err != nil {
		return "", 0
	}
	return text[open+1 : end], parent
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// pidFile is the postmaster's id as its file says, alive or not; 0 if there is none.
func pidFile(data string) int {
	f, err := os.Open(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	defer f.Close()
	buf := make([]byte, 32)
	n, _ := f.Read(buf) // what is not there is no number
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// kill ends processes at once, stopped ones too.
func kill(pids []int) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// alive reports whether there is such a process, be it a zombie.
func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
