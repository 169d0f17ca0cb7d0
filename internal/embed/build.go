package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	modulePath  = "github.com/puppetsrv/puppetsrv"
	corednsPath = "github.com/coredns/coredns"

	// pluginLine goes into plugin.cfg directly before the line of before. The
	// place in that file is the place in the chain: behind everything that
	// works on the plugin's answers, ahead of everything that would answer for
	// its zones.
	pluginLine = "puppetsrv:" + modulePath + "/plugin/puppetsrv"
	before     = "file:file"
)

// mayChange are the files of CoreDNS that its documented way of adding a plugin
// writes. A change of any other would mean that this is not the CoreDNS that
// users have.
var mayChange = []string{"plugin.cfg", "go.mod", "go.sum", "core/dnsserver/zdirectives.go", "core/plugin/zplugin.go", "plugin/chaos/zowners.go"}

// build makes a CoreDNS with the plugin in it, as a user would. It returns the
// binary's path, or "" after a failure.
func build(ctx context.Context, r *report, dir string) string {
	checkout, err := findModule(ctx, ".", modulePath)
	if !r.check("find this checkout", err) {
		return ""
	}
	sums, err := moduleFiles(checkout.Dir)
	if !r.check("read this checkout's go.mod and go.sum", err) {
		return ""
	}
	upstream, err := download(ctx, checkout.Dir)
	if !r.check("get the CoreDNS that go.mod names", err) {
		return ""
	}
	src := filepath.Join(dir, "coredns-src")
	if !r.check("copy "+upstream.Path+"@"+upstream.Version, copyWritable(src, upstream.Dir)) {
		return ""
	}
	if !r.check("add one line to plugin.cfg", addPlugin(filepath.Join(src, "plugin.cfg"))) {
		return ""
	}
	binary := filepath.Join(dir, "coredns")
	for _, args := range [][]string{
		{"generate", "coredns.go"},
		// In place of `go get` of a published version: this checkout is none.
		{"mod", "edit", "-replace", modulePath + "=" + checkout.Dir},
		{"mod", "tidy"},
		{"build", "-trimpath", "-o", binary, "."},
	} {
		verb := args[0]
		if verb == "mod" {
			verb += " " + args[1]
		}
		start := time.Now()
		_, err := goTool(ctx, src, args...)
		took := time.Since(start).Round(100 * time.Millisecond)
		if !r.check(fmt.Sprintf("go %s (%v)", verb, took), err) {
			return ""
		}
	}
	r.check("puppetsrv stands after transfer, right before file", checkOrder(filepath.Join(src, "core", "dnsserver", "zdirectives.go")))
	r.check("nothing else of CoreDNS is changed", checkUnmodified(upstream.Dir, src))
	r.check("this checkout's go.mod and go.sum are unchanged", checkSame(sums, checkout.Dir))
	return binary
}

// module is what the go tool says of a module.
type module struct{ Path, Version, Dir string }

func findModule(ctx context.Context, dir, path string) (module, error) {
	return decodeModule(goTool(ctx, dir, "list", "-m", "-json", path))
}

// download returns CoreDNS in the module cache, checked against the go.sum of
// the checkout.
func download(ctx context.Context, checkout string) (module, error) {
	return decodeModule(goTool(ctx, checkout, "mod", "download", "-json", corednsPath))
}

func decodeModule(b []byte, err error) (module, error) {
	var m module
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("understanding the go tool: %w", err)
	}
	if m.Dir == "" {
		return m, fmt.Errorf("the go tool knows no directory of %s", m.Path)
	}
	return m, nil
}

// goTool runs the go command. Of the caller's flags none is passed on: -mod=vendor
// or a workspace would build something else.
func goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false", "COREDNS_PLUGINS=", "GOOS=", "GOARCH=")
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, cmp.Or(ctx.Err(), err), tail(stderr.String()+stdout.String(), 30))
	}
	return stdout.Bytes(), nil
}

// tail is the last lines of s, indented for a message.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return "     | " + strings.Join(all[max(0, len(all)-lines):], "\n     | ")
}

// copyWritable copies a directory of the module cache, where nothing may be
// written.
func copyWritable(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// addPlugin adds the line at its place.
func addPlugin(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading plugin.cfg: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	i := slices.Index(lines, before)
	if i < 0 {
		return fmt.Errorf("plugin.cfg has no line %q, before which the plugin belongs", before)
	}
	lines = slices.Insert(lines, i, pluginLine)
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644)
}

var quoted = regexp.MustCompile(`"([^"]+)"`)

// checkOrder looks at the generated order of the plugins.
func checkOrder(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the generated directives: %w", err)
	}
	_, list, _ := strings.Cut(string(b), "Directives = []string{")
	var names []string
	for _, m := range quoted.FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	i := slices.Index(names, "puppetsrv")
	if i < 1 || i+1 >= len(names) || names[i+1] != "file" {
		return fmt.Errorf("puppetsrv is not right before file in %q", names)
	}
	if j := slices.Index(names, "transfer"); j < 0 || j > i {
		return fmt.Errorf("puppetsrv is not after transfer in %q", names)
	}
	return nil
}

// checkUnmodified compares two source trees but for the files that may change.
func checkUnmodified(from, to string) error {
	seen := make(map[string]bool)
	compare := func(root, other string) error {
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if seen[rel] || slices.Contains(mayChange, filepath.ToSlash(rel)) {
				return nil
			}
			seen[rel] = true
			a, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(filepath.Join(other, rel))
			if err != nil {
				return err
			}
			if !bytes.Equal(a, b) {
				return fmt.Errorf("%s differs", rel)
			}
			return nil
		})
	}
	return errors.Join(compare(from, to), compare(to, from))
}

// moduleFiles reads what a build could write to a module.
func moduleFiles(dir string) (map[string]string, error) {
	files := make(map[string]string)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = string(b)
	}
	return files, nil
}

func checkSame(before map[string]string, dir string) error {
	after, err := moduleFiles(dir)
	if err != nil {
		return err
	}
	for name := range before {
		if before[name] != after[name] {
			return fmt.Errorf("%s was changed", name)
		}
	}
	return nil
}
