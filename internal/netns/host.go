//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// device is the name of a host's interface.
const device = "eth0"

// Host is one host of a Net.
type Host struct {
	Name string
	Addr netip.Addr

	net       *Net
	namespace string
	mounts    [][2]string // source and target
}

// Namespace is the host's name for `ip netns` and for nsenter.
func (h *Host) Namespace() string { return h.namespace }

// Bind has commands of the host from now on see the file or directory source, as the
// machine has it, at target, which must exist.
func (h *Host) Bind(source, target string) { h.mounts = append(h.mounts, [2]string{source, target}) }

// enter names the host and mounts what it is given, in the namespaces that Command and
// `ip netns exec` have made, and becomes the command: a process has the id that exec.Cmd
// knows.
const enter = `printf %s "$1" > /proc/sys/kernel/hostname || exit 125
n=$2; shift 2
while [ "$n" -gt 0 ]; do
	mount --bind "$1" "$2" || exit 125
	shift 2; n=$((n-1))
done
exec "$@"`

// Command is exec.Command on the host. It has the machine's files, but for what is
// bound, and the host's name as its own. It is in a process group of its own and is killed
// with this process, and at the end of the test.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return h.CommandContext(context.Background(), name, args...)
}

// CommandContext is Command with a context, at whose end the process is killed.
func (h *Host) CommandContext(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := []string{"netns", "exec", h.namespace, "/bin/sh", "-c", enter, "sh", h.Name, strconv.Itoa(len(h.mounts))}
	for _, m := range h.mounts {
		all = append(all, m[0], m[1])
	}
	all = append(append(all, name), args...)
	cmd := exec.CommandContext(ctx, "ip", all...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUTS}
	return cmd
}

// Kill ends all processes of hosts at once, as a power cut does, and returns when there is
// none. A host whose namespace is gone is an error. It may be called from any goroutine.
func Kill(hosts ...*Host) error {
	var paths []string
	for _, h := range hosts {
		path := filepath.Join(runDir, h.namespace)
		if _, err := os.Stat(path); err != nil { // kill would pass over it
			return fmt.Errorf("killing the host %s: %w", h.Name, err)
		}
		paths = append(paths, path)
	}
	return kill(paths)
}

// Do calls f on a thread that is on the host: sockets that f itself opens are the
// host's, for as long as they live. Goroutines that f starts are not there. It may
// be called from any goroutine.
func (h *Host) Do(f func() error) error { return within(h.namespace, f) }

// Dial connects from the host to an address, which must be a number and a port. It may
// be called from any goroutine. The caller has to close the connection before the
// test ends: the host's namespace lives on until then, without a name.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", h.Name, err) // a name would be resolved elsewhere
	}
	err = h.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// within calls f on a thread that is in a namespace.
func within(namespace string, f func() error) (err error) {
	there, err := os.Open(filepath.Join(runDir, namespace))
	if err != nil {
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	defer here.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering the network namespace %s: %w", namespace, err)
	}
	defer func() {
		if e := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); e != nil {
			// The thread stays locked, and ends with this goroutine.
			err = errors.Join(err, fmt.Errorf("leaving the network namespace %s: %w", namespace, e))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
