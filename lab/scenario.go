//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// scenario is one promise, or a few that need the same. It begins with a stack on which all
// is well, configured as stack.Default, and leaves it so.
type scenario struct {
	name  string
	title string
	run   func(*T)
}

// scenarios are all, in the order in which they run.
var scenarios = []scenario{
	localFirst,
	deadMasters,
	killedMidRun,
	newHost,
	caData,
	disaster,
	serviceMode,
	linkCut,
	everythingDead,
	secondary,
}

// most is how long one scenario may take.
const most = 15 * time.Minute

func choose(names []string) ([]scenario, error) {
	if len(names) == 0 {
		return scenarios, nil
	}
	var all []scenario
	for _, name := range names {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			var known []string
			for _, s := range scenarios {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(known, ", "))
		}
		all = append(all, scenarios[i])
	}
	return all, nil
}

// runScenarios makes a stack, runs scenarios on it, and prints the table.
func runScenarios(ctx context.Context, src string, chosen []scenario, file string) error {
	began := time.Now()
	root := &T{ctx: ctx}
	var results []result
	failed := !root.run(func(t *T) {
		s := start(t, src)
		for _, c := range chosen {
			r := runOne(ctx, s, c)
			results = append(results, r)
			if !r.ok {
				tellLogs(s)
			}
			if ctx.Err() != nil {
				return
			}
		}
	})
	if len(results) == 0 && ctx.Err() != nil {
		return exitError{130}
	}
	if len(results) == 0 {
		return exitError{1}
	}
	table := renderTable(results, time.Since(began))
	fmt.Print("\n", table)
	if file != "" {
		if err := os.WriteFile(file, []byte(table), 0o644); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return exitError{130}
	case failed || slices.ContainsFunc(results, func(r result) bool { return !r.ok }):
		return fmt.Errorf("not all was as expected; all logs are in %s", logs(src))
	}
	return nil
}

// start makes a stack that ends with t, or returns the one that another process holds.
func start(t *T, src string) *stack.Stack {
	if state := os.Getenv(stackVariable); state != "" {
		var saved stack.Saved
		t.Must(json.Unmarshal([]byte(state), &saved))
		return stack.Resume(t, saved, os.Stdout)
	}
	s, err := stack.New(t, rundir(src), src, os.Stdout)
	t.Must(err)
	fmt.Println("starting the stack")
	if err := s.Up(t.ctx); err != nil {
		tellLogs(s)
		t.Fatalf("starting the stack: %v", err)
	}
	return s
}

// result is a scenario that has ended.
type result struct {
	scenario
	rows []row
	ok   bool
	took time.Duration
}

func runOne(ctx context.Context, s *stack.Stack, c scenario) result {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("a scenario has %v", most))
	defer cancel()
	fmt.Printf("\n%s: %s\n", c.name, c.title)
	began := time.Now()
	t := &T{Stack: s, ctx: ctx}
	ok := t.run(c.run)
	if ctx.Err() == nil {
		// What a scenario leaves is what the next one begins with.
		s.Heal()
		t.last = time.Now()
		ok = t.run(func(t *T) { t.Must(s.Well(ctx)) }) && ok
	}
	return result{c, t.rows, ok, time.Since(began)}
}

// renderTable is the table in Markdown.
func renderTable(results []result, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| scenario | expected | seen | seconds |\n|---|---|---|---|\n")
	misses, start := 0, " with the stack's start"
	if os.Getenv(stackVariable) != "" {
		start = " on a stack that ran"
	}
	for _, r := range results {
		fmt.Fprintf(&b, "| **%s** | %s | %s | %.0f |\n", r.name, r.title, map[bool]string{true: "as expected", false: "**NOT AS EXPECTED**"}[r.ok], r.took.Seconds())
		if !r.ok {
			misses++
		}
		for _, row := range r.rows {
			seen := row.seen
			if !row.ok {
				seen = "**MISS** " + seen
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %.1f |\n", cell(row.what), cell(row.expected), cell(seen), row.took.Seconds())
		}
	}
	fmt.Fprintf(&b, "\n%d scenarios, %d not as expected, %.0f s%s. %s.\n", len(results), misses, took.Seconds(), start, versions())
	return b.String()
}

func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(text)
}

// tellLogs prints the ends of all logs that have one.
func tellLogs(s *stack.Stack) {
	for _, path := range s.Logs() {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
		// What a JVM says all the time is in the file.
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " INFO ") || strings.HasPrefix(l, "\tat ") })
		fmt.Printf("--- end of %s\n%s\n", strings.TrimPrefix(path, s.Dir), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
