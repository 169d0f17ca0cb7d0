package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// request is what -stop, -start and -revoke ask of the running playground over the
// socket in its run directory.
type request struct {
	Command string `json:"command"` // stop, start or revoke
	Name    string `json:"name,omitempty"`

	conn net.Conn
}

type reply struct {
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// answer sends the reply. Who asked may have left, which is no error.
func (r request) answer(text string) { r.send(reply{Text: text}) }
func (r request) refuse(why string)  { r.send(reply{Error: why}) }

func (r request) send(answer reply) {
	_ = r.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_ = json.NewEncoder(r.conn).Encode(answer)
	_ = r.conn.Close()
}

// control is the playground's end of the socket.
type control struct {
	listener net.Listener
	wg       sync.WaitGroup
}

// listenControl hands every request to take, each on a goroutine of its own;
// take owns the connection then.
func listenControl(dir string, take func(request)) (*control, error) {
	c := new(control)
	err := atSocket(dir, func(path string) error {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		listener.SetUnlinkOnClose(false) // rundir removes it
		c.listener = listener
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	c.wg.Go(func() {
		for {
			conn, err := c.listener.Accept()
			if err != nil {
				return // closed
			}
			c.wg.Go(func() {
				r := request{conn: conn}
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				if json.NewDecoder(io.LimitReader(bufio.NewReader(conn), 4096)).Decode(&r) != nil {
					conn.Close()
					return
				}
				take(r)
			})
		}
	})
	return c, nil
}

// close returns when no request will be taken any more.
func (c *control) close() {
	_ = c.listener.Close()
	c.wg.Wait()
}

// atSocket calls f with a path of the control socket that is short enough: a
// socket's path has a limit of about 100 bytes, a directory's has not. No
// other goroutine may use relative paths meanwhile.
func atSocket(dir string, f func(path string) error) error {
	path := filepath.Join(dir, controlName)
	if len(path) < 100 {
		return f(path)
	}
	before, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	return errors.Join(f(controlName), os.Chdir(before))
}

// ask sends a request and waits for the reply; the playground replies when it
// has done what it was asked.
func ask(dir string, r request) (reply, error) {
	var answer reply
	var conn net.Conn
	err := atSocket(dir, func(path string) (err error) {
		conn, err = net.Dial("unix", path)
		return err
	})
	if err != nil {
		return answer, fmt.Errorf("reaching the playground: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(askTimeout))
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return answer, fmt.Errorf("asking the playground: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return answer, fmt.Errorf("waiting for the playground: %w", err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// askTimeout is longer than anything that a playground does when asked.
const askTimeout = time.Minute

// askStop stops the playground of the directory and returns when its lock is
// free, which is when it has ended. If none runs, that is what was wanted; what
// one has left is removed.
func askStop(dir string, out io.Writer) error {
	asked, answer := false, reply{Text: fmt.Sprintf("no playground runs in %s", dir)}
	for deadline := time.Now().Add(askTimeout); ; time.Sleep(20 * time.Millisecond) {
		r, leftover, err := lockRundir(dir, 0)
		var running *runningError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintln(out, answer.Text)
			return nil
		case err == nil:
			if leftover == 0 { // a start of this moment, which finds it locked
				return r.release()
			}
			return errors.Join(r.clearLeftover(leftover, out), r.release())
		case !errors.As(err, &running):
			return err
		}
		if !asked {
			got, err := ask(dir, request{Command: "stop"})
			if err == nil {
				asked, answer = true, got
			} else if time.Now().After(deadline) {
				// Before it listens and after it has ceased to, the socket is
				// not there for a moment; not for a minute.
				return fmt.Errorf("the playground in %s (pid %d) does not answer; `kill -9 %d` ends it and all its processes: %w", dir, running.pid, running.pid, err)
			}
		} else if time.Now().After(deadline) {
			return fmt.Errorf("the playground in %s (pid %d) does not end", dir, running.pid)
		}
	}
}

// askFor has the running playground do something, and tells what it did.
func askFor(dir string, r request, out io.Writer) error {
	answer, err := ask(dir, r)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no playground runs in %s", dir)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(out, answer.Text)
	return nil
}
