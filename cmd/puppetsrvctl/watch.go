package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

type watchCommand struct {
	Count int    `placeholder:"N" help:"End after this many events."`
	After uint64 `placeholder:"ID" help:"Begin after the event of this number. Default: with those that the node remembers."`
}

// The pauses between tries to connect again.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// errEnough ends a stream after the last event that was asked for.
var errEnough = errors.New("enough")

// Run prints events until it is interrupted. A node that cannot be asked at all is
// an error; one that goes away is asked again for ever, from where it stopped.
func (c *watchCommand) Run(s *session) error {
	if c.Count < 0 {
		return fail(exitUsage, "--count is %d: want 1 or more", c.Count)
	}
	client, err := s.ask()
	if err != nil {
		return err
	}
	if _, err := client.Camaster(s.ctx); err != nil {
		return err
	}
	page := s.page()
	last, seen := c.After, 0
	pause, told := firstPause, false
	for {
		err := client.Events(s.ctx, last, func(e admin.Event) error {
			pause, told = firstPause, false
			last = e.ID
			if err := s.event(page, e); err != nil {
				return err
			}
			if seen++; seen == c.Count {
				return errEnough
			}
			return nil
		})
		switch {
		case errors.Is(err, errEnough):
			return nil
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case err != nil && !passing(err):
			return err
		}
		if !told && err != nil {
			fmt.Fprint(os.Stderr, complaint(report.Clean(err.Error())+"; trying again until Ctrl-C"))
			told = true // once for each loss, not for each try
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

// passing is true of errors that a node has while it restarts, or is busy.
func passing(err error) bool {
	var (
		unreachable *admin.UnreachableError
		fault       *admin.Fault
	)
	if errors.As(err, &fault) {
		return fault.Status >= http.StatusInternalServerError || fault.Status == http.StatusTooManyRequests
	}
	return errors.As(err, &unreachable)
}

// event prints one event as a line.
func (s *session) event(p report.Page, e admin.Event) error {
	if !s.json() {
		p.Now = time.Now()
		return write(p.Event(e))
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return write(string(data) + "\n")
}
