"""The page to try it on: `alpharefine demo` serves it from this computer, with everything it needs."""
