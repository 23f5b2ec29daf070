def test_x(digits_export):
    print(digits_export)
