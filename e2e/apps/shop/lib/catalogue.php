<?php
declare(strict_types=1);

/** What the shop sells, by product id; prices in cents. */
const CATALOGUE = [
    'mug'      => ['name' => 'Stoneware mug',     'price' => 1490, 'about' => 'Holds 350 ml, fired twice, survives the dishwasher.'],
    'teapot'   => ['name' => 'Cast-iron teapot',  'price' => 5900, 'about' => 'Keeps a litre of tea warm for an hour.'],
    'notebook' => ['name' => 'Dotted notebook',   'price' => 1250, 'about' => '192 pages of paper that takes a fountain pen.'],
    'pen'      => ['name' => 'Fountain pen',      'price' => 3400, 'about' => 'Steel nib, medium, with a converter.'],
    'lamp'     => ['name' => 'Reading lamp',      'price' => 7900, 'about' => 'Warm light, three steps, a long arm.'],
    'blanket'  => ['name' => 'Wool blanket',      'price' => 8900, 'about' => 'Merino, 140 by 200 cm, woven in the Alps.'],
    'board'    => ['name' => 'Cutting board',     'price' => 2900, 'about' => 'End-grain oak, oiled, with rubber feet.'],
    'umbrella' => ['name' => 'Storm umbrella',    'price' => 4500, 'about' => 'Eight fibreglass ribs; laughs at gusts.'],
];

/** Longest engraving that the workshop accepts, in characters. */
const ENGRAVING_LIMIT = 40;

/** An amount of cents as people write it. */
function price(int $cents): string
{
    return sprintf('%d.%02d €', intdiv($cents, 100), $cents % 100);
}
