//go:build race

package casync_test

// raced: everything takes many times as long.
const raced = true
