// A WebAssembly guest: reads an image on stdin and writes its checksum, metadata and thumbnail as JSON on stdout.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"
	"image/jpeg"
	_ "image/png"
	"io"
	"os"
	"strings"
)

const (
	thumbnailPixels = 256
	// samples is the number of pixels in each direction of which a pixel of the thumbnail is the mean.
	samples = 4
	// pixelsMax bounds the memory: a small file can be of a huge image.
	pixelsMax = 16 << 20
)

type result struct {
	SHA256 string `json:"sha256"`
	Format string `json:"format"`
	Width  int    `json:"width"`
	Height int    `json:"height"`
	// Thumbnail is a JPEG, in Base64.
	Thumbnail []byte `json:"thumbnail"`
}

func main() {
	content, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	config, format, err := image.DecodeConfig(bytes.NewReader(content))
	if err != nil {
		fail(err)
	}
	if config.Width*config.Height > pixelsMax {
		fail(fmt.Errorf("the image has %d x %d pixels; at most %d are allowed", config.Width, config.Height, pixelsMax))
	}
	picture, _, err := image.Decode(bytes.NewReader(content))
	if err != nil {
		fail(err)
	}
	var thumbnail bytes.Buffer
	if err := jpeg.Encode(&thumbnail, scale(picture), &jpeg.Options{Quality: 85}); err != nil {
		fail(err)
	}
	sum := sha256.Sum256(content)
	found := result{hex.EncodeToString(sum[:]), strings.ToUpper(format), config.Width, config.Height, thumbnail.Bytes()}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

// scale returns the image in the size of a thumbnail.
func scale(picture image.Image) image.Image {
	from := picture.Bounds()
	longest := max(from.Dx(), from.Dy(), thumbnailPixels)
	small := image.NewRGBA(image.Rect(0, 0, max(1, from.Dx()*thumbnailPixels/longest), max(1, from.Dy()*thumbnailPixels/longest)))
	width, height := small.Rect.Dx()*samples, small.Rect.Dy()*samples
	for y := range small.Rect.Dy() {
		for x := range small.Rect.Dx() {
			var r, g, b uint32
			for i := range samples * samples {
				px := from.Min.X + (x*samples+i%samples)*from.Dx()/width
				py := from.Min.Y + (y*samples+i/samples)*from.Dy()/height
				red, green, blue, _ := picture.At(px, py).RGBA()
				r, g, b = r+red>>8, g+green>>8, b+blue>>8
			}
			const all = samples * samples
			small.SetRGBA(x, y, color.RGBA{uint8(r / all), uint8(g / all), uint8(b / all), 255})
		}
	}
	return small
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
