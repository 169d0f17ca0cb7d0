//go:build race

package role_test

// raced: everything takes many times as long.
const raced = true
