package cadir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// The lines of services.d/ca.cfg (puppetserver's bootstrap configuration). With the CA
// service off, the service that watches files has to be named too, which the CA service
// brings with it.
const (
	serviceOn    = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service"
	serviceOff   = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service"
	serviceWatch = "puppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service"
)

const maxConfig = 64 << 10

// Configured reports whether ca.cfg has the CA service on.
func Configured(path string) (on bool, err error) {
	data, _, err := readRegular(path, maxConfig)
	if err != nil {
		return false, fmt.Errorf("reading %q: %w", path, err)
	}
	off := false
	for line := range bytes.Lines(data) {
		switch string(bytes.TrimSpace(line)) {
		case serviceOn:
			on = true
		case serviceOff:
			off = true
		}
	}
	if on == off {
		return false, fmt.Errorf("%q names %s: leave one of %s and %s", path, map[bool]string{true: "both CA services", false: "no CA service"}[on], serviceOn, serviceOff)
	}
	return on, nil
}

// switched is ca.cfg with the CA service on or off. Whatever else is in it stays; a line
// that does not count now is commented out.
func switched(data []byte, on bool) []byte {
	want, other := []byte(serviceOff), []byte(serviceOn)
	if on {
		want, other = other, want
	}
	var out []byte
	found, watched := false, on // with the CA service on nobody minds the other line
	uncomment := func(line []byte) []byte { return bytes.TrimSpace(bytes.TrimLeft(bytes.TrimSpace(line), "#")) }
	plain := func(line []byte) bool { return !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) }
	// A line that counts already is better than one behind a #.
	has := func(what []byte) bool {
		for line := range bytes.Lines(data) {
			if plain(line) && bytes.Equal(bytes.TrimSpace(line), what) {
				return true
			}
		}
		return false
	}
	haveWant, haveWatch := has(want), has([]byte(serviceWatch))
	for line := range bytes.Lines(data) {
		service := uncomment(line)
		switch {
		case bytes.Equal(service, want):
			if plain(line) || !haveWant && !found {
				line, found = append(want[:len(want):len(want)], '\n'), true
			}
		case bytes.Equal(service, other) && plain(line):
			line = append(append([]byte("#"), other...), '\n')
		case bytes.Equal(service, []byte(serviceWatch)) && !on:
			if plain(line) || !haveWatch && !watched {
				line, watched = []byte(serviceWatch+"\n"), true
			}
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			line = append(line[:len(line):len(line)], '\n')
		}
		out = append(out, line...)
	}
	if !found {
		out = append(append(out, want...), '\n')
	}
	if !watched {
		out = append(out, serviceWatch+"\n"...)
	}
	return out
}

// switchConfig writes ca.cfg. It is replaced by rename, with the owner and mode it has.
func switchConfig(path string, on bool) error {
	data, s, err := readRegular(path, maxConfig)
	if err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	if is, err := Configured(path); err == nil && is == on {
		return nil
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new") // no *.cfg: puppetserver reads all of those
	if err := writeNew(temp, switched(data, on), attributes{uid: int(s.uid), gid: int(s.gid), mode: s.mode}); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("writing %q: %w", path, errors.Join(err, ignoreMissing(os.Remove(temp))))
	}
	return syncDir(filepath.Dir(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// switchSteps turn the CA service on or off. A change of ca.cfg needs a full restart:
// a reload does not read it again.
func (s *Service) switchSteps(f Facts, on bool) []role.Step {
	if f.Configured == on && f.Answers && f.On == on {
		return nil
	}
	return []role.Step{
		{Name: "switch the CA service " + onOff(on), Detail: "in " + s.Config, Timeout: time.Minute, Run: func(context.Context) (string, error) {
			if on {
				// Started without them, puppetserver would make a new CA.
				if err := s.dir.CheckStart(); err != nil {
					return "", err
				}
			}
			return "ca.cfg has it " + onOff(on), switchConfig(s.Config, on)
		}},
		{Name: "restart puppetserver", Detail: s.Restart.String(), Timeout: s.RestartTimeout, Run: s.Restart.Run},
		{Name: "wait for puppetserver", Detail: "until " + s.StatusURL + " says that the CA service is " + onOff(on), Timeout: s.RestartTimeout, Run: func(ctx context.Context) (string, error) {
			return s.await(ctx, on)
		}},
	}
}

func (s *Service) await(ctx context.Context, want bool) (string, error) {
	last := "puppetserver does not answer"
	for {
		on, answers, detail := s.status(ctx)
		if answers && on == want {
			return detail, nil
		}
		if ctx.Err() == nil { // else it is only that the time is over
			last = detail
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the CA service to be %s: %s", onOff(want), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
