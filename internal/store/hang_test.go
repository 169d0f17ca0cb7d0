package store

import (
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
	close(hang)
	if err := s.Sync(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("written, and still: %v", err)
	}
	if got := OpenSerials(dir).Next("example.net.", "b", 0, time.Now()); got != last {
		t.Errorf("read back %d, want %d", got, last)
	}
}
