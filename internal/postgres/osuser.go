package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// account is who the server's programs run as.
type account struct {
	name, home string
	// credential is nil if this process is not root, and then is that user already.
	credential *syscall.Credential
}

// lookupAccount finds the user with its groups: on Debian it is by a group that the
// server may read its TLS key.
func lookupAccount(name string) (account, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("looking up the user of this process: %w", err)
		}
		return account{name: u.Username, home: u.HomeDir}, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("postgresql: os_user: %w: it has to be the user that the server runs as", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("postgresql: os_user %s has the id %q: %w", name, u.Uid, err)
	}
	if uid == 0 {
		return account{}, fmt.Errorf("postgresql: os_user is %s: PostgreSQL does not run as root; name the user that it runs as", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("postgresql: os_user %s has the group %q: %w", name, u.Gid, err)
	}
	c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("postgresql: groups of os_user %s: %w", name, err)
	}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(g))
		}
	}
	return account{name: name, home: u.HomeDir, credential: c}, nil
}

// run runs one of the server's programs. Its messages are in English, and nothing of
// this process's PG* environment changes what it does.
func (a account) run(ctx context.Context, argv ...string) (string, error) {
	return a.runIn(ctx, "/", argv...)
}

// runIn is run in a directory, by which processes finds it.
func (a account) runIn(ctx context.Context, dir string, argv ...string) (string, error) {
	env := []string{"LC_ALL=C", "HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name}
	for _, e := range os.Environ() {
		switch key, _, _ := strings.Cut(e, "="); key {
		case "PATH", "TZ", "LD_LIBRARY_PATH":
			env = append(env, e)
		}
	}
	return role.Process{Command: argv, Dir: dir, Env: env, User: a.credential}.Run(ctx)
}

// dial connects to a unix socket as that user, so that the server's peer
// authentication sees it: the kernel notes who a thread is when it connects.
func (a account) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	if a.credential == nil || network != "unix" {
		return d.DialContext(ctx, network, addr)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread is never given back: it ends with this goroutine, whatever its
		// user is then. RawSyscall changes the user of this thread alone.
		runtime.LockOSThread()
		const same = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(a.credential.Uid), same); errno != 0 {
			done <- result{err: fmt.Errorf("becoming %s: %w", a.name, errno)}
			return
		}
		conn, err := d.DialContext(ctx, network, addr)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
