// Verify a phone from Go: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… go run ./examples/otp +12025550143
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/watchword-auth/watchword/factors/gateway/client"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("which number?")
	}
	ctx := context.Background()
	c := client.New(os.Getenv("WATCHWORD_API"), os.Getenv("WATCHWORD_API_KEY"))
	v, err := c.Create(ctx, client.CreateRequest{To: os.Args[1], Purpose: "sign_up"}) // repeats itself safely
	if err != nil {
		log.Fatal(err) // decide by client.Is(err, client.CodeInvalidNumber) and its like
	}
	fmt.Println("Sent to", v.To)
	for typed := bufio.NewScanner(os.Stdin); typed.Scan(); {
		result, err := c.Check(ctx, v.ID, typed.Text())
		switch {
		case err != nil:
			log.Fatal(err)
		case result.Valid:
			fmt.Println("Verified")
			return
		}
		fmt.Println("Wrong code, attempts left:", result.AttemptsLeft)
	}
	os.Exit(1)
}
