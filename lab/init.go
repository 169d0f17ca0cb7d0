//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A stack lives in process, mount and UTS namespaces of its own. When the first process
// there dies, of whatever, the kernel kills all others, and the names of network namespaces
// go with the mounts: nothing is left that another run could meet.
//
//	lab            waits, and passes signals on
//	└ lab init     the first process: reaps what nobody else waits for
//	  └ lab        makes the stack and runs the scenarios

// roleVariable says which of them a process is.
const roleVariable = "LAB_PROCESS"

// stackVariable is a stack that is held by another process.
const stackVariable = "LAB_STACK"

// outsideVariable is the first process's id outside of the namespaces.
const outsideVariable = "LAB_OUTSIDE"

// initProcess is the first process, if this one is to be that.
func initProcess() (done bool, code int) {
	if os.Getenv(roleVariable) != "init" {
		return false, 0
	}
	// /proc is still that of the machine.
	outside, err := os.Readlink("/proc/self")
	if err == nil {
		err = errors.Join(os.Setenv(outsideVariable, outside), os.Setenv(roleVariable, "inside"))
	}
	if err == nil {
		err = mounts()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: making namespaces:", err)
		return true, 1
	}
	return true, reap()
}

// mounts gives the namespaces a /proc and a /run of their own.
func mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

// reap starts this program again, waits for every process that ends, and returns how that
// one did.
func reap() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	child, err := os.StartProcess(exe, os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = child.Signal(s) // it may have ended
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "lab: waiting:", err)
			return 1
		case pid == child.Pid && status.Signaled():
			return 128 + int(status.Signal())
		case pid == child.Pid:
			return status.ExitStatus()
		}
	}
}

// isolated calls f inside the namespaces: here, if this process is there, or else by
// starting this program again there. Signals end the context.
func isolated(f func(context.Context) error) error {
	if os.Getenv(roleVariable) == "inside" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		context.AfterFunc(ctx, stop) // the second signal ends it as ever
		return f(ctx)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"=init")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's Ctrl-C comes through this process alone
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	runtime.LockOSThread() // the death signal is that of the thread
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError{max(exit.ExitCode(), 1)}
	}
	return err
}

// attach runs this program in the namespaces of a stack that another process holds.
func attach(h *held, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	all := h.inside(append([]string{"env", "--chdir", h.Stack.Source, exe}, args[1:]...)...)
	path, err := exec.LookPath(all[0])
	if err != nil {
		return err
	}
	state, err := json.Marshal(h.Stack)
	if err != nil {
		return err
	}
	return syscall.Exec(path, all, append(os.Environ(), roleVariable+"=inside", stackVariable+"="+string(state)))
}
