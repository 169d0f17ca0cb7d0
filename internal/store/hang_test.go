package store

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A disk hangs: the answer is not held up, the write goes on behind, and what
// was given out meanwhile is written with it or after it.
func TestAHangingDiskIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	s := OpenSerials(dir)
	hang := make(chan struct{})
	s.writeFile = func(path string, data []byte) error {
		<-hang
		return WriteFile(path, data)
	}
	s.Next("example.net.", "a", 0, time.Now())
	if err := s.Sync(time.Millisecond); err == nil || !strings.Contains(err.Error(), "longer than 1ms") {
		t.Fatalf("err %v", err)
	}
	if s.Err() == nil {
		t.Error("nothing tells that it is not on disk")
	}
	last := s.Next("example.net.", "b", 0, time.Now())
	if err := s.Close(time.Millisecond); err == nil {
		t.Error("closed, though nothing is on disk")
	}
	close(hang)
	if err := s.Close(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("written, and still: %v", err)
	}
	if got := OpenSerials(dir).Next("example.net.", "b", 0, time.Now()); got != last {
		t.Errorf("read back %d, want %d", got, last)
	}
}

// Only one change in many waits for the disk.
func TestSerialsAreReserved(t *testing.T) {
	dir := t.TempDir()
	s := OpenSerials(dir)
	writes := 0
	s.writeFile = func(path string, data []byte) error {
		writes++
		return WriteFile(path, data)
	}
	var last uint32
	for i := range 3 * reserve {
		last = s.Next("example.net.", fmt.Sprint(i), 0, time.Now())
		if err := s.Sync(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 3 {
		t.Errorf("%d writes for %d changes", writes, 3*reserve)
	}
	if got := OpenSerials(dir).Next("example.net.", "other", 0, time.Now()); !Newer(got, last) {
		t.Errorf("after a crash %d, given out was %d", got, last)
	}
}
