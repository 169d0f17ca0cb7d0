//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// Where an agent's host has what the environments `long` and `pause` make.
const (
	fetched = "/var/lib/lab/files"
	waits   = "/var/lib/lab/waits"
	goOn    = "/var/lib/lab/go"
)

// pauseFiles is how many files a run in the environment `pause` fetches: one before it waits.
const pauseFiles = 5

// longRun is a run of an agent that fetches files, and is looked at meanwhile. Its methods
// may be called from any goroutine.
type longRun struct {
	*stack.Process
	agent *stack.Host
	files int              // how many it fetches
	seen  map[string]int64 // the masters' access logs when it began, bytes
	t     *T
}

// fetch starts a run that fetches all files of an environment: none is there.
func fetch(t *T, agent *stack.Host, environment string, more ...string) (*longRun, error) {
	r := &longRun{agent: agent, t: t, files: stack.LongFiles, seen: make(map[string]int64)}
	if environment == "pause" {
		r.files = pauseFiles
	}
	for _, path := range []string{fetched, waits, goOn} {
		if err := os.RemoveAll(agent.Path(path)); err != nil {
			return nil, err
		}
	}
	for _, m := range stack.Masters {
		r.seen[m] = int64(len(t.Host(m).Read(accessLog)))
	}
	r.Process = agent.StartAgent(t.Context(), append([]string{"--environment", environment}, more...)...)
	return r, nil
}

// until waits for something that the run does. Its end before that is an error.
func (r *longRun) until(ctx context.Context, what string, condition func() error) error {
	ended := false
	err := stack.Until(ctx, what, func() error {
		err := condition()
		select {
		case <-r.Done():
			ended = err != nil
			return nil
		default:
			return err
		}
	})
	if ended {
		return fmt.Errorf("it has ended before %s: %v", what, r.Wait())
	}
	return err
}

// has waits for a file on the agent's host.
func (r *longRun) has(ctx context.Context, path string) error {
	return r.until(ctx, path+" is there", func() error {
		_, err := os.Stat(r.agent.Path(path))
		return err
	})
}

// fileserver is the master that the run fetches its files from.
func (r *longRun) fileserver(ctx context.Context) (found *stack.Host, err error) {
	mark := fmt.Sprintf("%s - - ", r.agent.Addr)
	err = r.until(ctx, "its fileserver is known", func() error {
		for _, m := range stack.Masters {
			log := r.t.Host(m).Read(accessLog)
			for line := range strings.Lines(log[min(int(r.seen[m]), len(log)):]) {
				if strings.HasPrefix(line, mark) && strings.Contains(line, "GET /puppet/v3/file_content/modules/lab/") {
					found = r.t.Host(m)
					return nil
				}
			}
		}
		return fmt.Errorf("no master has served it a file")
	})
	return found, err
}

// absent are its files that are not there, in the order in which it fetches them.
func (r *longRun) absent() (files []int) {
	for i := 1; i <= r.files; i++ {
		if _, err := os.Stat(r.agent.Path(fetchedFile(i))); errors.Is(err, os.ErrNotExist) {
			files = append(files, i)
		}
	}
	return files
}

// outcome is how such a run ended.
type outcome struct {
	stack.Result
	lost    int    // resources that failed
	missing []int  // files that are not there
	stored  string // the report's status, as PuppetDB has it; "" if there is none
}

var (
	failedResources = regexp.MustCompile(`(?ms)^resources:$.*?^  failed: (\d+)$`)
	transaction     = regexp.MustCompile(`(?m)^transaction_uuid: '?([0-9a-f-]+)'?$`) // quoted where it begins like an octal number
)

// end waits for the run's end and looks at what it has left.
func (r *longRun) end(ctx context.Context) (o outcome, err error) {
	o.Result = r.Wait()
	o.missing = r.absent()
	failed := failedResources.FindStringSubmatch(r.agent.Read("/var/cache/puppet/public/last_run_summary.yaml"))
	if failed == nil {
		return o, fmt.Errorf("no summary of the run: %v", o.Result)
	}
	if o.lost, err = strconv.Atoi(failed[1]); err != nil {
		return o, err
	}
	uuid := transaction.FindStringSubmatch(r.agent.Read("/var/cache/puppet/state/last_run_report.yaml"))
	if uuid == nil {
		return o, fmt.Errorf("the run has made no report: %v", o.Result)
	}
	status := regexp.MustCompile(`"status"\s*:\s*"(\w+)"`)
	_ = stack.UntilWithin(ctx, 20*time.Second, "the report is stored", func() error { // seen by stored
		q := r.t.Host("m1").Query(ctx, fmt.Sprintf(`reports[status] { transaction_uuid = "%s" }`, uuid[1]))
		m := status.FindStringSubmatch(q.Out)
		if m == nil {
			return fmt.Errorf("no report: %v", q)
		}
		o.stored = m[1]
		return nil
	})
	return o, nil
}

// whole reports whether all was applied and reported.
func (o outcome) whole() bool {
	return o.Code == 2 && o.lost == 0 && len(o.missing) == 0 && o.stored == "changed"
}

// costs reports whether nothing was lost but one to n resources, one after the other, which
// the report says.
func (o outcome) costs(n int) bool {
	missing := len(o.missing)
	inRow := missing == 0 || o.missing[missing-1]-o.missing[0] == missing-1
	return o.Code == 6 && 1 <= o.lost && o.lost <= n && missing <= o.lost && inRow && o.stored == "failed"
}

func (o outcome) String() string {
	stored := "report not stored"
	if o.stored != "" {
		stored = "report stored as " + o.stored
	}
	return fmt.Sprintf("exit code %d after %.1f s, %d failed, %d files missing, %s", o.Code, o.Took.Seconds(), o.lost, len(o.missing), stored)
}
